"""Parser for one line of a list file, with messages for common mistakes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from irv2caffe.data.records.items import MAX_LABEL, Item

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LINE = re.compile(r"(.*\S)[ \t]+(\S+)[ \t]*")
_WHOLE = re.compile(
    r"([0-9]+)(?:\.0*)?"
)  # pandas writes 1 as 1.0; atoi, which Caffe uses, accepts it
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_SEVERAL_AT_END = re.compile(r"[0-9.]+(?:[,;|][-0-9.]+)+")
_ENDING = re.compile(r"\.[A-Za-z]{3,4}$")
_BY_COMMA = re.compile(r".*[,;][-+]?[0-9.]+[ \t]*")
_PLAIN = "lines are PATH LABEL, label from 0"
_HINTS = {
    "a fraction for a label": "a Datum holds a whole number; numbers for a regression go into HDF5",
    "a negative label": "labels count from 0 to the number of classes - 1",
    "several labels": "a Datum holds one; several go into HDF5, or into a database each",
    "a path in quotation marks": "write it without: all before the last blank is the path",
    "a path with backslashes": "write / between folders: sed -i 's|\\\\|/|g' LIST",
    "a comma before the label": f"{_PLAIN}, with a blank or tab between: sed -i 's/,/ /' LIST",
    "the path leaves the source folder": "paths start from SOURCE: give a folder above all images, "
    "such as / for absolute paths",
}


def hint_on(reasons: list[str]) -> str:
    """A hint for each of the reasons why lines are malformed."""
    hints = dict.fromkeys(_HINTS.get(reason, _PLAIN) for reason in reasons)
    return "; ".join(hints)


def parse_line(line: str, root: Path | None, exists: Callable[[str], bool]) -> Item:
    """An image and its label.

    Args:
        line: without its line break.
        root: absolute paths below it are accepted too.
        exists: whether an image of a name exists; called only for unusual lines.

    Raises:
        ValueError: the reason, which is the same for all lines with the same mistake.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        is_table = _BY_COMMA.fullmatch(line) is not None
        raise ValueError("a comma before the label" if is_table else "no label at the end")
    name, label = match[1], _label(match[2])
    if root is not None:
        name = name.removeprefix(f"{root.absolute()}/".replace("//", "/"))
    # convert_imageset prepends the folder to any path, even to an absolute one.
    is_below = not name.startswith("/") or (root is not None and exists(name))
    if not is_below or ".." in name.split("/"):
        raise ValueError("the path leaves the source folder")
    why = _mistake_in(name)
    if why and not exists(name):
        raise ValueError(why)
    return Item(name, label)


def _label(text: str) -> int:
    whole = _WHOLE.fullmatch(text)
    if whole is not None:
        if len(whole[1]) > 10 or int(whole[1]) > MAX_LABEL:
            raise ValueError(f"a label above {MAX_LABEL}")
        return int(whole[1])
    if _SEVERAL_AT_END.fullmatch(text):
        raise ValueError("several labels")
    if _NUMBER.fullmatch(text):
        raise ValueError("a negative label" if text[0] == "-" else "a fraction for a label")
    raise ValueError("a comma before the label" if "," in text else "no label at the end")


def _mistake_in(name: str) -> str:
    """The probable mistake in a path; empty if there is none."""
    if name[-1] in ",;":
        return "a comma before the label"
    if _ends_in_numbers(name):
        return "several labels"
    if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'":
        return "a path in quotation marks"
    return "a path with backslashes" if "\\" in name else ""


def _ends_in_numbers(name: str) -> bool:
    """Whether a file name is followed by numbers."""
    words = name.split()
    count = len(words)
    while words and _NUMBER.fullmatch(words[-1]):
        words.pop()
    return 0 < len(words) < count and _ENDING.search(words[-1]) is not None
