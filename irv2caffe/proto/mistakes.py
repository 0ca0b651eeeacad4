"""What was probably meant where a prototxt cannot be read."""

from __future__ import annotations

import re

_NOT_A_STRING = re.compile(r"Expected string but found: '([\w.+-]*)'")
_NO_VALUE = re.compile(r'Enum type "([\w.]+)" has no value named "?([^"\s]*?)"?\.?$')
_FIELD_BEFORE = re.compile(r"(\w+)\s*:\s*$")
# Strings and comments are stepped over; a quote that is not closed is one character.
_TOKEN = re.compile(
    r"""(?P<skip>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\#[^\n]*)|(?P<beyond>[^\x00-\x7f])"""
)
_HINTS = {
    'Expected ":"': 'a colon stands between a field and its value: name: "..."',
    "Couldn't parse integer": "the field takes a whole number, without a point or quotes",
    "Couldn't parse float": "the field takes a number, without quotes",
    'Expected "true" or "false"': "in small letters and without quotes",
    "should not have multiple": "leave one of them",
    "got }": "there is one } more than {",
    'Expected "}"': "a } is missing",
}


def meant(problem: str, text: str, line: int | None, column: int | None) -> str:
    """What was probably meant where protobuf's reader stops, or nothing.

    Args:
        problem: what it says.
        text: that it reads.
        line: where it stops, from 1.
        column: where it stops, from 1.
    """
    for words, hint in _HINTS.items():
        if words in problem:
            return hint
    bare, value = _NOT_A_STRING.search(problem), _NO_VALUE.search(problem)
    if value and value.group(1) == "caffe.V1LayerParameter.LayerType":
        return (
            "layers { } is the form before 2014, with types in capitals such as SOFTMAX; a type "
            f'such as "{value.group(2)[:60]}" belongs in layer {{ }}'
        )
    if value:
        enum = value.group(1).removeprefix("caffe.").replace(".", " ")
        return f"a fork may have it; Caffe 1.0's {enum} does not"
    if not bare:
        return ""
    word = bare.group(1)[:60]
    lines = text.split("\n")
    before = lines[line - 1][: (column or 1) - 1] if line and line <= len(lines) else ""
    field = _FIELD_BEFORE.search(before)
    if field and field.group(1) == "type" and word.isupper():
        return (
            f"type: {word} is of the form before 2014, which stands in layers {{ }}; layer {{ }} "
            'takes a type in quotes, such as "Softmax"'
        )
    return f'a text stands in quotes: {field.group(1) if field else "name"}: "{word}"'


def beyond_ascii(text: str) -> int | None:
    """Where the first character stands that is not ASCII, outside of strings and comments."""
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "beyond":
            return match.start()
    return None
