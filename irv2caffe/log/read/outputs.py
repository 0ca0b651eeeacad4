"""Outputs by name: an output of several elements is several series.

Caffe prints an output once for each element, always by the same name: the accuracies of the
classes, or overall accuracy, mean over classes and mean IU of one layer. Such are kept as
``NAME[0]``, ``NAME[1]`` and so on. Of one with very many (probabilities) the mean is kept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, TypeVar

from irv2caffe.log.read.columns import Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_OUTPUTS = 256  # names that are kept; a net has some ten
MAX_ELEMENTS = 100  # of one name
MAX_NAME = 200  # characters
Kept = TypeVar("Kept")


class Outputs(Generic[Kept]):
    """Under which name each output is kept.

    Attributes:
        kept: what is kept, by name; the caller's, which is changed in place.
    """

    def __init__(self, kept: dict[str, Kept]) -> None:
        self.kept = kept
        self._seen: dict[str, int] = {}
        self._split: set[str] = set()
        self._averaged: set[str] = set()

    def next(self, names: Iterable[str] = ()) -> None:
        """A new display begins, which has already said one value of each of these."""
        self._seen = dict.fromkeys(names, 1)

    def is_single(self, name: str) -> bool:
        """Whether no output of this name has had several elements."""
        return name not in self._split and name not in self._averaged

    def key(self, name: str) -> str | None:
        """Where the next value by this name goes; None where there is no room."""
        element = self._seen.get(name, 0)
        if element or len(self._seen) < MAX_OUTPUTS:
            self._seen[name] = element + 1
        key = name
        if name not in self._averaged and (element or name in self._split):
            if element < MAX_ELEMENTS:
                self._begin_split(name)
                key = f"{name}[{element}]"
            else:
                self._average(name)
        return key if key in self.kept or len(self.kept) < MAX_OUTPUTS else None

    def _begin_split(self, name: str) -> None:
        """What came by this name so far was its first element."""
        if name in self._split:
            return
        self._split.add(name)
        kept = [(f"{name}[0]" if key == name else key, one) for key, one in self.kept.items()]
        self.kept.clear()
        self.kept.update(kept)

    def _average(self, name: str) -> None:
        """There are too many elements: the mean of all counts."""
        self._split.discard(name)
        self._averaged.add(name)
        keys = [f"{name}[{element}]" for element in range(MAX_ELEMENTS)]
        parts = [self.kept.pop(key) for key in keys if key in self.kept]
        if parts:
            self.kept[name] = self._mean(parts)

    def _mean(self, parts: Sequence[Kept]) -> Kept:
        raise NotImplementedError


class TrainOutputs(Outputs[Series]):
    """Of the training net, whose displays follow each other."""

    def add(self, name: str, iteration: int, value: float) -> bool:
        """Adds the next value that an output has at an iteration; whether there was room."""
        key = self.key(name)
        if key is not None:
            self.kept.setdefault(key, Series()).add(iteration, value)
        return key is not None

    def _mean(self, parts: Sequence[Series]) -> Series:
        return Series.mean_of(parts)


class TestOutputs(Outputs[float]):
    """Of one test."""

    def __init__(self, kept: dict[str, float], names: set[str]) -> None:
        """Nothing is said yet.

        Args:
            kept: as of :class:`Outputs`.
            names: of all tests of the run, which are bounded together.
        """
        super().__init__(kept)
        self._names = names

    def add(self, name: str, value: float) -> bool:
        """Adds the next value of an output; whether there was room."""
        key = self.key(name)
        if key is None or (key not in self._names and len(self._names) >= MAX_OUTPUTS):
            return False
        self._names.add(key)
        if key in self.kept:  # the mean of as many as were seen
            value = self.kept[key] + (value - self.kept[key]) / self._seen[name]
        self.kept[key] = value
        return True

    def _mean(self, parts: Sequence[float]) -> float:
        return math.fsum(parts) / len(parts)
