"""Displays and outputs of a log as columns of numbers, about fifty bytes per display."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from collections.abc import Iterable

_NONE_US = -1


@dataclass(frozen=True, slots=True)
class TrainPoint:
    """One display of the training loss.

    Attributes:
        iteration: number of updates before it.
        loss: mean over ``average_loss`` iterations.
        lr: learning rate, or None where the line is missing.
        seconds: working time since the start; pauses between restarts are not counted.
        iteration_s: seconds per iteration since the previous display, None where a test or a
            restart lies between.
    """

    iteration: int
    loss: float
    lr: float | None
    seconds: float | None
    iteration_s: float | None


class TrainColumns(Sequence[TrainPoint]):
    """The displays of the loss, by iteration; a sequence of :class:`TrainPoint`.

    Attributes:
        iteration: integers.
        loss: floats.
        lr: floats, not-a-number where there is none.
        time_us: working time in microseconds, -1 where there is none.
        step_us: microseconds since the previous display, 0 where a test or a restart lies between.
    """

    def __init__(self) -> None:
        self.iteration = array("q")
        self.loss = array("d")
        self.lr = array("d")
        self.time_us = array("q")
        self.step_us = array("q")

    def __len__(self) -> int:
        return len(self.iteration)

    @overload
    def __getitem__(self, index: int) -> TrainPoint: ...
    @overload
    def __getitem__(self, index: slice) -> list[TrainPoint]: ...
    def __getitem__(self, index: int | slice) -> TrainPoint | list[TrainPoint]:
        if isinstance(index, slice):
            return [self[index] for index in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        lr, time_us, step_us = self.lr[index], self.time_us[index], self.step_us[index]
        steps = self.iteration[index] - self.iteration[index - 1] if index else 0
        return TrainPoint(
            self.iteration[index],
            self.loss[index],
            None if math.isnan(lr) else lr,
            None if time_us == _NONE_US else time_us / 1e6,
            step_us / 1e6 / steps if step_us > 0 and steps > 0 else None,
        )

    def append(
        self, iteration: int, loss: float, lr: float | None, time_us: int | None, step_us: int
    ) -> None:
        """Adds a display."""
        self.iteration.append(iteration)
        self.loss.append(loss)
        self.lr.append(math.nan if lr is None else lr)
        self.time_us.append(_NONE_US if time_us is None else time_us)
        self.step_us.append(step_us)

    def extend(self, **columns: Any) -> None:
        """Adds many displays, given as arrays of the columns' types."""
        for name, values in columns.items():
            getattr(self, name).frombytes(values.tobytes())

    def cut(self, iteration: int) -> int:
        """Drops the displays from an iteration on; returns their number."""
        index = bisect_left(self.iteration, iteration)
        dropped = len(self) - index
        for column in (self.iteration, self.loss, self.lr, self.time_us, self.step_us):
            del column[index:]
        return dropped

    def forget_before(self, iteration: int) -> None:
        """Drops the displays before an iteration."""
        index = bisect_left(self.iteration, iteration)
        for column in (self.iteration, self.loss, self.lr, self.time_us, self.step_us):
            del column[:index]


class Series:
    """The values of one training output by iteration; several at one iteration are averaged."""

    def __init__(self) -> None:
        self.iteration = array("q")
        self._total = array("d")
        self._count = array("q")

    def __len__(self) -> int:
        return len(self.iteration)

    def add(self, iteration: int, value: float) -> None:
        """Adds a value."""
        if self.iteration and self.iteration[-1] == iteration:
            self._total[-1] += value
            self._count[-1] += 1
        else:
            self.iteration.append(iteration)
            self._total.append(value)
            self._count.append(1)

    def extend(self, iteration: Any, value: Any) -> None:
        """Adds one value for each of increasing iterations, given as arrays."""
        self.iteration.frombytes(iteration.tobytes())
        self._total.frombytes(value.tobytes())
        self._count.extend(array("q", [1]) * len(value))

    @classmethod
    def mean_of(cls, parts: Iterable[Series]) -> Series:
        """The mean of several series at each iteration."""
        sums: dict[int, tuple[float, int]] = {}
        for part in parts:
            for iteration, total, count in part.sums():
                before = sums.get(iteration, (0.0, 0))
                sums[iteration] = (before[0] + total, before[1] + count)
        mean = cls()
        for iteration in sorted(sums):
            total, count = sums[iteration]
            mean.iteration.append(iteration)
            mean._total.append(total)
            mean._count.append(count)
        return mean

    def sums(self) -> Iterable[tuple[int, float, int]]:
        """Iteration, sum and number of the values at each iteration."""
        return zip(self.iteration, self._total, self._count, strict=True)

    def values(self) -> Sequence[float]:
        """The values (means, where there were several), one for each iteration."""
        if max(self._count, default=1) == 1:
            return self._total
        pairs = zip(self._total, self._count, strict=True)
        return array("d", (total / count for total, count in pairs))

    def get(self, iteration: int) -> float | None:
        """The mean at an iteration, or None."""
        index = bisect_left(self.iteration, iteration)
        if index == len(self) or self.iteration[index] != iteration:
            return None
        return self._total[index] / self._count[index]

    def cut(self, iteration: int) -> None:
        """Drops the values from an iteration on."""
        index = bisect_left(self.iteration, iteration)
        for column in (self.iteration, self._total, self._count):
            del column[index:]

    def forget_before(self, iteration: int) -> None:
        """Drops the values before an iteration."""
        index = bisect_left(self.iteration, iteration)
        for column in (self.iteration, self._total, self._count):
            del column[:index]
