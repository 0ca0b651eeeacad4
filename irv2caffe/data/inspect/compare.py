"""Compares two databases, record by record."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.records.datum import read_head
from irv2caffe.data.records.decode import stored_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_MAX_LISTED = 20


@dataclass
class Comparison:
    """Differences of two databases.

    Attributes:
        first: folder of the first.
        second: folder of the second.
        num_first: records of the first.
        num_second: records of the second.
        num_equal: records with the same key and the same bytes.
        num_same_image: records with the same key, label and pixels in other bytes.
        num_other_label: records with the same key and another label.
        num_other_image: records with the same key and label, and other pixels.
        max_difference: of two pixel values in those.
        num_only_first: keys that the second lacks.
        num_only_second: keys that the first lacks.
        examples: (key, what differs) of some.
    """

    first: str
    second: str
    num_first: int = 0
    num_second: int = 0
    num_equal: int = 0
    num_same_image: int = 0
    num_other_label: int = 0
    num_other_image: int = 0
    max_difference: float = 0.0
    num_only_first: int = 0
    num_only_second: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Whether the records are equal, byte for byte."""
        return self.num_equal == self.num_first == self.num_second


def compare(
    first: Path,
    second: Path,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Comparison:
    """Compares two databases in the order of their keys.

    Args:
        first: folder of the first.
        second: folder of the second.
        progress: called with (records done, all records).

    Raises:
        MissingInputError: no such database.
        FormatError: no LMDB.
    """
    result = Comparison(str(first), str(second))
    with ExitStack() as stack:
        one = other = stack.enter_context(open_reader(first))
        if first.resolve() != second.resolve():  # LMDB opens a database only once
            other = stack.enter_context(open_reader(second))
        result.num_first, result.num_second = len(one), len(other)
        total = max(result.num_first, result.num_second)
        for number, (key, left, right) in enumerate(_pairs(iter(one), iter(other)), 1):
            _count(result, key, left, right)
            progress(min(number, total), total)
    return result


def _pairs(
    one: Iterator[tuple[bytes, bytes]], other: Iterator[tuple[bytes, bytes]]
) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """(key, record of the first, record of the second); None where one has no such key."""
    left, right = next(one, None), next(other, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            assert left is not None
            yield left[0], left[1], None
            left = next(one, None)
        elif left is None or right[0] < left[0]:
            yield right[0], None, right[1]
            right = next(other, None)
        else:
            yield left[0], left[1], right[1]
            left, right = next(one, None), next(other, None)


def _count(result: Comparison, key: bytes, left: bytes | None, right: bytes | None) -> None:
    if left is None or right is None:
        missing = result.first if left is None else result.second
        if left is None:
            result.num_only_second += 1
        else:
            result.num_only_first += 1
        _note(result, key, f"not in {missing}")
    elif left == right:
        result.num_equal += 1
    else:
        _note(result, key, _difference(result, left, right))


def _difference(result: Comparison, left: bytes, right: bytes) -> str:
    try:
        labels = read_head(left).label, read_head(right).label
        if labels[0] != labels[1]:
            result.num_other_label += 1
            return f"label {labels[0]} and {labels[1]}"
        images = stored_pixels(left), stored_pixels(right)
    except ValueError as error:
        result.num_other_image += 1
        return str(error)
    if images[0].shape != images[1].shape:
        result.num_other_image += 1
        return f"{images[0].shape} and {images[1].shape}"
    distance = float(np.abs(images[0].astype(np.float64) - images[1]).max())
    if distance == 0:
        result.num_same_image += 1
        return "the same pixels in other bytes"
    result.num_other_image += 1
    result.max_difference = max(result.max_difference, distance)
    return f"pixels differ by up to {distance:g}"


def _note(result: Comparison, key: bytes, what: str) -> None:
    if len(result.examples) < _MAX_LISTED:
        result.examples.append((key.decode("utf-8", "replace"), what))
