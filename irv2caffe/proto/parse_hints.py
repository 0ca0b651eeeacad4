"""Hints for prototxt syntax errors, from the messages of protobuf's parser."""

from __future__ import annotations

import re

_NOT_A_STRING = re.compile(r"Expected string but found: '([\w.+-]*)'")
_NO_VALUE = re.compile(r'Enum type "([\w.]+)" has no value named "?([^"\s]*?)"?\.?$')
_FIELD_BEFORE = re.compile(r"(\w+)\s*:\s*$")
# Strings and comments are skipped; an unclosed quote counts as one character.
_TOKEN = re.compile(
    r"""(?P<skip>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\#[^\n]*)|(?P<found>[^\x00-\x7f])"""
)
_HINTS = {
    'Expected ":"': 'write a colon between a field and its value: name: "..."',
    "Couldn't parse integer": "expected an integer, without a decimal point or quotes",
    "Couldn't parse float": "expected a number, without quotes",
    'Expected "true" or "false"': "write it in lower case and without quotes",
    "should not have multiple": "keep one of them",
    "got }": "there is a } without a {",
    'Expected "}"': "a } is missing",
}


def parse_hint(problem: str, text: str, line: int | None, column: int | None) -> str:
    """Returns a hint for an error of protobuf's parser, or an empty text.

    Args:
        problem: the error message.
        text: the prototxt.
        line: line of the error, from 1.
        column: column of the error, from 1.
    """
    for words, hint in _HINTS.items():
        if words in problem:
            return hint
    bare, value = _NOT_A_STRING.search(problem), _NO_VALUE.search(problem)
    if value and value.group(1) == "caffe.V1LayerParameter.LayerType":
        return (
            "layers { } is the format before 2014, with types such as SOFTMAX; use layer { } for "
            f'types such as "{value.group(2)[:60]}"'
        )
    if value:
        enum = value.group(1).removeprefix("caffe.").replace(".", " ")
        return f"Caffe 1.0 has no such {enum}; a fork may have it"
    if not bare:
        return ""
    word = bare.group(1)[:60]
    lines = text.split("\n")
    before = lines[line - 1][: (column or 1) - 1] if line and line <= len(lines) else ""
    field = _FIELD_BEFORE.search(before)
    if field and field.group(1) == "type" and word.isupper():
        return (
            f"type: {word} is the format before 2014, for layers {{ }}; in layer {{ }}, write the "
            'type in quotes, such as "Softmax"'
        )
    return f'write strings in quotes: {field.group(1) if field else "name"}: "{word}"'


def find_non_ascii(text: str) -> int | None:
    """Returns the offset of the first non-ASCII character outside strings and comments, if any."""
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "found":
            return match.start()
    return None
