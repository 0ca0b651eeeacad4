"""Stores the values of net outputs by name; an output with several elements has a key for each.

Caffe prints an output once for each element, always with the same name, such as the accuracies of
the classes. They are stored as ``NAME[0]``, ``NAME[1]`` and so on. Of an output with more than
:data:`MAX_ELEMENTS` elements, such as probabilities, the mean is stored.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, TypeVar

from irv2caffe.log.read.columns import Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_OUTPUTS = 256  # names; a net has about ten
MAX_ELEMENTS = 100  # of one name
MAX_NAME = 200  # characters
_Kept = TypeVar("_Kept")


class _Outputs(Generic[_Kept]):
    """Chooses the key of each value.

    Attributes:
        kept: values by key; the caller's dictionary, changed in place.
    """

    def __init__(self, kept: dict[str, _Kept]) -> None:
        self.kept = kept
        self._num_seen: dict[str, int] = {}  # values by name in this display
        self._split: set[str] = set()
        self._averaged: set[str] = set()

    def start_display(self, names: Iterable[str] = ()) -> None:
        """Starts a display; one value of each of these names has been stored already."""
        self._num_seen = dict.fromkeys(names, 1)

    def is_single(self, name: str) -> bool:
        """Whether no output of this name has had several elements."""
        return name not in self._split and name not in self._averaged

    def _next_key(self, name: str) -> str | None:
        """The key of the next value of this name; None where there is no room."""
        element = self._num_seen.get(name, 0)
        if element or len(self._num_seen) < MAX_OUTPUTS:
            self._num_seen[name] = element + 1
        key = name
        if name not in self._averaged and (element or name in self._split):
            if element < MAX_ELEMENTS:
                self._split_elements(name)
                key = f"{name}[{element}]"
            else:
                self._average_elements(name)
        return key if key in self.kept or len(self.kept) < MAX_OUTPUTS else None

    def _split_elements(self, name: str) -> None:
        """Renames what is stored under this name to the first of several elements."""
        if name in self._split:
            return
        self._split.add(name)
        kept = [(f"{name}[0]" if key == name else key, one) for key, one in self.kept.items()]
        self.kept.clear()
        self.kept.update(kept)

    def _average_elements(self, name: str) -> None:
        """Replaces too many elements by their mean."""
        self._split.discard(name)
        self._averaged.add(name)
        keys = [f"{name}[{element}]" for element in range(MAX_ELEMENTS)]
        parts = [self.kept.pop(key) for key in keys if key in self.kept]
        if parts:
            self.kept[name] = self._mean(parts)

    def _mean(self, parts: Sequence[_Kept]) -> _Kept:
        raise NotImplementedError


class TrainOutputs(_Outputs[Series]):
    """Outputs of the training net, display after display."""

    def add(self, name: str, iteration: int, value: float) -> bool:
        """Adds the next value of an output at an iteration; returns whether there was room."""
        key = self._next_key(name)
        if key is not None:
            self.kept.setdefault(key, Series()).add(iteration, value)
        return key is not None

    def _mean(self, parts: Sequence[Series]) -> Series:
        return Series.mean_of(parts)


class TestOutputs(_Outputs[float]):
    """Outputs of one test."""

    def __init__(self, kept: dict[str, float], names: set[str]) -> None:
        """Starts without values.

        Args:
            kept: values by key; changed in place.
            names: keys of all tests of the run, whose number is bounded.
        """
        super().__init__(kept)
        self._names = names

    def add(self, name: str, value: float) -> bool:
        """Adds the next value of an output; returns whether there was room."""
        key = self._next_key(name)
        if key is None or (key not in self._names and len(self._names) >= MAX_OUTPUTS):
            return False
        self._names.add(key)
        if key in self.kept:  # the running mean
            value = self.kept[key] + (value - self.kept[key]) / self._num_seen[name]
        self.kept[key] = value
        return True

    def _mean(self, parts: Sequence[float]) -> float:
        return math.fsum(parts) / len(parts)
