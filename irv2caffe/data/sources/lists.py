"""List files: lines of ``PATH LABEL``, checked where convert_imageset would store nonsense."""

from __future__ import annotations

import re
from array import array
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from irv2caffe.data.items import MAX_LABEL, Item, Items, Source
from irv2caffe.data.sources.folders import missing_classes
from irv2caffe.data.sources.text import read_lines, some
from irv2caffe.errors import FormatError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_LINE = re.compile(r"(.*\S)[ \t]+(\S+)[ \t]*")
_MAX_COLLECTED = 100


def read_list(
    root: Path, path: Path, table: tuple[str, ...] | None, *, kind: str = "list"
) -> Source:
    """The images that a list names, in its order.

    Args:
        root: the folder that its paths start from.
        path: lines of ``PATH LABEL``; paths may hold spaces.
        table: class names by label, or None.
        kind: of the source.

    Raises:
        FormatError: malformed lines, by number; the same image with two labels.
        InputError: a label that the table does not have.
    """
    items, lines = parse_list(read_lines(path), path, root)
    highest = max(items.labels)
    if table and highest >= len(table):
        number = lines[items.labels.index(highest)]
        raise InputError(
            f"{path}:{number}: label {highest}, but there are {len(table)} classes",
            "labels count from 0",
        )
    return Source(root, kind, items, table or (), notes=tuple(_notes(items, table or ())))


def parse_list(
    lines: Iterable[tuple[int, str]], path: Path, root: Path | None = None
) -> tuple[Items, array[int]]:
    """Images and the numbers of their lines.

    Args:
        lines: (number, line).
        path: of the list, for messages.
        root: absolute paths below it are taken too.

    Raises:
        FormatError: malformed lines, by number.
    """
    items = Items()
    numbers = array("Q")
    bad: list[str] = []
    num_bad = 0
    for number, line in lines:
        try:
            items.add(_parse_line(line, root))
            numbers.append(number)
        except ValueError as error:
            num_bad += 1
            if len(bad) < _MAX_COLLECTED:
                bad.append(f"line {number}: {error}")
    bad += _contradictions(items, lambda index: numbers[index])
    num_bad = max(num_bad, len(bad))
    if bad:
        raise FormatError(
            f"{num_bad:,} bad line(s): {some(bad)}", "lines are PATH LABEL, label from 0", path=path
        )
    if not items:
        raise FormatError("names no images", "lines are PATH LABEL, label from 0", path=path)
    return items, numbers


def _parse_line(line: str, root: Path | None) -> Item:
    match = _LINE.fullmatch(line)
    if match is None or not (match[2].isdecimal() and match[2].isascii()):
        raise ValueError("no label at the end")
    name, label = match[1], match[2]
    if name.startswith("/") and root is not None:
        prefix = f"{root.absolute()}/".replace("//", "/")
        name = name.removeprefix(prefix)
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise ValueError("the path leaves the source folder")
    if len(label) > 10 or int(label) > MAX_LABEL:
        raise ValueError(f"label {label[:20]} is too large")
    return Item(name, int(label))


def repeated(items: Items) -> list[tuple[int, int]]:
    """(first place, later place) of every image that stands in a list more than once."""
    import numpy as np

    hashes = np.fromiter(
        (hash(items.name_bytes(index)) for index in range(len(items))), np.int64, len(items)
    )
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    pairs = []
    for place in same:
        first, later = int(order[place]), int(order[place + 1])
        if items.name_bytes(first) == items.name_bytes(later):
            pairs.append((first, later))
    return pairs


def _contradictions(items: Items, line_of: Callable[[int], int]) -> list[str]:
    """Images that a list gives two labels; one of them is wrong, and nobody can know which."""
    labels = items.labels
    bad = [
        f"line {line_of(later)}: label {labels[later]}, but line {line_of(first)} gave the same "
        f"image label {labels[first]}"
        for first, later in repeated(items)
        if labels[first] != labels[later]
    ]
    return bad[:_MAX_COLLECTED]


def _notes(items: Items, table: tuple[str, ...]) -> list[str]:
    notes = []
    num_repeated = len(repeated(items))
    if num_repeated:
        notes.append(f"{num_repeated:,} line(s) repeat an image")
    if table:
        return notes + missing_classes(items, table)
    present = set(items.labels)
    if min(present) > 0:
        notes.append(f"the smallest label is {min(present)}: do the labels count from 1?")
    gaps = max(present) + 1 - min(present) - len(present)
    if gaps:
        notes.append(f"{gaps:,} label(s) below {max(present)} have no image")
    return notes
