"""List files: lines of ``PATH LABEL``, with errors that convert_imageset would store as labels."""

from __future__ import annotations

import os
from array import array
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from irv2caffe.data.records.class_table import read_lines
from irv2caffe.data.records.items import Items, Source
from irv2caffe.data.sources.classes import notes_on_counts
from irv2caffe.data.sources.list_lines import hint_on, parse_line
from irv2caffe.errors import FormatError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_MAX_RANGES = 1000
_MAX_PAIRS = 20
_NUM_ABOVE = 3  # folders above the root that are searched for a missing image
_MAX_BELOW = 1000
NO_NAMES = "the classes have no names: --labels FILE gives them, one a line, by label"
_TWO_LABELS = "another label than an earlier line gives the image"


def read_list(
    root: Path, path: Path, table: tuple[str, ...] | None, *, kind: str = "list"
) -> Source:
    """Reads a list file; the images are in its order.

    Args:
        root: the folder that its paths start from.
        path: lines of ``PATH LABEL``; paths may contain spaces.
        table: class names by label, or None.
        kind: of the source.

    Raises:
        FormatError: malformed lines, by number; the same image with two labels.
        InputError: a label beyond the table.
    """

    def exists(name: str) -> bool:
        return os.path.isfile(f"{root}/{name}")  # noqa: PTH113  # with a slash before it, too

    items, lines = parse_list(read_lines(path), path, exists, root)
    check_labels(items, lines, path, table or ())
    return Source(root, kind, items, table or (), notes=tuple(_notes(items, table or ())))


def parse_list(
    lines: Iterable[tuple[int, str]],
    path: Path,
    exists: Callable[[str], bool],
    root: Path | None = None,
) -> tuple[Items, array[int]]:
    """The images of a list, and their line numbers; for the arguments see ``parse_line``.

    Raises:
        FormatError: malformed lines, by number.
    """
    items = Items()
    numbers = array("Q")
    bad: dict[str, array[int]] = {}
    for number, line in lines:
        try:
            items.add(parse_line(line, root, exists))
            numbers.append(number)
        except ValueError as error:
            bad.setdefault(str(error), array("Q")).append(number)
    for number, reason in _contradictions(items, numbers):
        bad.setdefault(reason, array("Q")).append(number)
    if bad:
        num_bad = sum(map(len, bad.values()))
        what = "; ".join(f"line {ranges(found)}: {reason}" for reason, found in bad.items())
        raise FormatError(f"{num_bad:,} bad line(s): {what}", _hint(bad), path=path)
    if not items:
        raise FormatError("names no images", "lines are PATH LABEL, label from 0", path=path)
    return items, numbers


def _hint(bad: dict[str, array[int]]) -> str:
    hint = hint_on(list(bad))
    is_heading = {reason: list(numbers) for reason, numbers in bad.items()} in (
        {"no label at the end": [1]},
        {"a comma before the label": [1]},
    )
    return f"{hint}; is line 1 a heading? remove it" if is_heading else hint


def repeated(items: Items) -> list[tuple[int, int]]:
    """(first index, later index) of every image that is listed more than once."""
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


def _contradictions(items: Items, lines: array[int]) -> list[tuple[int, str]]:
    """(line, reason) of lines that give an image another label than an earlier line."""
    labels = items.labels
    pairs = [pair for pair in repeated(items) if labels[pair[0]] != labels[pair[1]]]
    pairs.sort(key=lambda pair: pair[1])
    found: list[tuple[int, str]] = []
    for first, later in pairs:
        why = _TWO_LABELS
        if len(found) < _MAX_PAIRS:
            why = (
                f"label {labels[later]}, but line {lines[first]} gave the same image label "
                f"{labels[first]}"
            )
        found.append((lines[later], why))
    return found


def hint_on_missing(root: Path, name: str) -> str:
    """Searches near the root for an image of a list that does not exist below it.

    Returns:
        Text to append to a hint; empty where the image is not found.
    """
    root = root.absolute()
    name = name.lstrip("/")
    below = (Path(entry.path) for entry in _folders(root))
    for place in (*list(root.parents)[:_NUM_ABOVE], Path.cwd(), *below):
        if (place / name).is_file():
            return f"; {place / name} exists: give {place} as SOURCE"
    parts = PurePosixPath(name).parts
    for start in range(1, len(parts)):
        inner = root.joinpath(*parts[start:])
        if inner.is_file():
            return f"; {inner} exists: paths of the list begin with {'/'.join(parts[:start])}/"
    return ""


def _folders(root: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root) as entries:
            return [entry for entry in islice(entries, _MAX_BELOW) if entry.is_dir()]
    except OSError:
        return []


def check_labels(items: Items, lines: array[int], path: Path, table: tuple[str, ...]) -> None:
    """Refuses labels beyond the class table, if there is one.

    Raises:
        InputError: naming the lines.
    """
    beyond = [index for index, label in enumerate(items.labels) if label >= len(table)]
    if table and beyond:
        labels = sorted({items.labels[index] for index in beyond})
        raise InputError(
            f"{path}: label {ranges(labels)}, but there are {len(table)} classes: "
            f"line {ranges([lines[index] for index in beyond])}",
            "labels count from 0",
        )


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as ranges: ``1-3, 7, 9-12``; the first thousand ranges."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    shown = [str(low) if low == high else f"{low}-{high}" for low, high in found[:_MAX_RANGES]]
    left = sum(high - low + 1 for low, high in found[_MAX_RANGES:])
    return ", ".join(shown) + (f" and {left:,} more" if left else "")


def _notes(items: Items, table: tuple[str, ...]) -> list[str]:
    notes = []
    num_repeated = len(repeated(items))
    if num_repeated:
        notes.append(f"{num_repeated:,} line(s) repeat an image")
    notes += notes_on_counts(items, table)
    if table:
        return notes
    present = set(items.labels)
    if min(present) > 0:
        notes.append(f"the smallest label is {min(present)}: do the labels count from 1?")
    gaps = max(present) + 1 - min(present) - len(present)
    if gaps:
        notes.append(f"{gaps:,} label(s) below {max(present)} have no image")
    return [*notes, NO_NAMES]
