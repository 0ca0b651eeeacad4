"""What is conspicuous in a run: lost and stuck losses, stalls, plateaus. Facts, no diagnosis."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import islice, pairwise
from statistics import median
from typing import TYPE_CHECKING

from irv2caffe.log.accuracy import errors_of
from irv2caffe.log.table import PINNED_LOSS, TrainRows, column, is_lost

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from irv2caffe.log.table import Table, TestRow

_MAX_STALLS = 5
_STALL_S = 300.0
_STALL_FACTOR = 20.0
_PLATEAU_TESTS = 5
_PLATEAU_SHARE = 1 / 3
_SAMPLES = 10_000
_BEGINNING = 0.1  # of what the log shows
_PLATEAU_GAIN = 0.03  # of the error: less is no progress


@dataclass(frozen=True)
class Anomaly:
    """Something conspicuous.

    Attributes:
        kind: ``nan``, ``pinned``, ``perfect``, ``stuck``, ``stall`` or ``plateau``.
        iteration: where it begins.
        epoch: the same, or None where epochs are not known.
        text: for a person.
    """

    kind: str
    iteration: int
    epoch: float | None
    text: str


def find_anomalies(table: Table) -> tuple[Anomaly, ...]:
    """All that are found, by iteration."""
    found = [
        Anomaly(kind, iteration, table.epoch(iteration), text)
        for rule in (_lost, _perfect, _stuck, _stalls, _plateau)
        for kind, iteration, text in rule(table)
    ]
    return tuple(sorted(found, key=lambda anomaly: anomaly.iteration))


_Found = tuple[str, int, str]


def _losses(table: Table) -> Iterator[tuple[int, float]]:
    rows = table.train
    for iteration, loss in zip(column(rows, "iteration"), column(rows, "loss"), strict=True):
        yield int(iteration), loss


def _lost(table: Table) -> Iterator[_Found]:
    first = next(((i, loss) for i, loss in _losses(table) if is_lost(loss)), None)
    if first is not None:
        yield "nan", first[0], f"the training loss is {first[1]:g}"
    pinned = next((i for i, loss in _losses(table) if abs(loss - PINNED_LOSS) < 1e-3), None)
    if pinned is not None:
        text = f"the training loss is pinned at {PINNED_LOSS}: the net's outputs have overflowed"
        yield "pinned", pinned, text


def _perfect(table: Table) -> Iterator[_Found]:
    """Comparisons with a NaN are false, and so nothing is better than the right class."""
    for row in table.test:
        lost = row.loss is not None and is_lost(row.loss)
        if lost and any(error == 0 for error in errors_of(row.outputs).values()):
            yield (
                "perfect",
                row.iteration,
                "an accuracy of exactly 1 with a loss that is no number: the net's outputs are NaN",
            )
            return


def _stuck(table: Table) -> Iterator[_Found]:
    """The loss is where it began; what was resumed late may have nothing left to learn."""
    losses, iterations = column(table.train, "loss"), column(table.train, "iteration")
    if len(losses) < 20 or any(map(is_lost, losses)):
        return
    if iterations[0] > _BEGINNING * iterations[-1]:
        return
    quarter = len(losses) // 4
    first, last = _mean(losses[:quarter]), _mean(losses[-quarter:])
    guess = math.log(table.num_classes) if table.num_classes else None
    if last < 0.98 * first:
        return
    text = f"the training loss has not fallen: {first:.4g} at first, {last:.4g} now"
    if guess is not None and abs(last - guess) < 0.03 * guess:
        text += f", which is guessing among {table.num_classes:,} classes"
    yield "stuck", int(iterations[0]), text


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _stalls(table: Table) -> Iterator[_Found]:
    """Displays, without a test between them, that took far longer than usual."""
    every = len(table.train) // _SAMPLES + 1
    usual = median([taken for _, taken in islice(_steps(table), 0, None, every)] or [0.0])
    limit = max(_STALL_S, _STALL_FACTOR * usual)
    long = [(iteration, taken) for iteration, taken in _steps(table) if taken > limit]
    for iteration, taken in sorted(long, key=lambda pair: -pair[1])[:_MAX_STALLS]:
        text = f"nothing was logged for {taken / 60:,.0f} min; a display takes {usual:.3g} s"
        yield "stall", iteration, text
    if len(long) > _MAX_STALLS:
        yield "stall", long[0][0], f"{len(long) - _MAX_STALLS:,} more such pauses"


def _steps(table: Table) -> Iterator[tuple[int, float]]:
    """Iteration and seconds since the display before."""
    rows = table.train
    if isinstance(rows, TrainRows):
        for iteration, step_us in zip(rows.columns.iteration, rows.columns.step_us, strict=True):
            if step_us > 0:
                yield iteration, step_us / 1e6
        return
    for before, after in pairwise(rows):
        if after.images_per_second and after.seconds is not None and before.seconds is not None:
            yield after.iteration, after.seconds - before.seconds


def _plateau(table: Table) -> Iterator[_Found]:
    """A third of the run and more in which the validation error hardly became better."""
    rows = [row for row in table.test if row.top1_error is not None and row.iteration > 0]
    errors = [row.top1_error for row in rows if row.top1_error is not None]
    if len(rows) < 2 * _PLATEAU_TESTS or not all(map(math.isfinite, errors)):
        return
    best_after = _running_best(errors[::-1])[::-1]
    best_before = _running_best(errors)
    for place in range(1, len(rows) - _PLATEAU_TESTS + 1):
        before, after = best_before[place - 1], best_after[place]
        if before - after <= _PLATEAU_GAIN * before:
            break
    else:
        return
    start, end = rows[place - 1], rows[-1]
    if end.iteration - start.iteration < _PLATEAU_SHARE * end.iteration:
        return
    text = (
        f"the validation error has hardly moved since: best {before:.1f} % then, {after:.1f} % now"
    )
    yield "plateau", start.iteration, text + _falling(table, start)


def _running_best(errors: Sequence[float]) -> list[float]:
    best, found = math.inf, []
    for error in errors:
        best = min(best, error)
        found.append(best)
    return found


def _falling(table: Table, since: TestRow) -> str:
    """Whether the training loss went on falling meanwhile."""
    first_place = bisect_left(column(table.train, "iteration"), since.iteration)
    losses = [loss for loss in column(table.train, "loss")[first_place:] if not is_lost(loss)]
    if len(losses) < 4:
        return ""
    part = max(1, len(losses) // 10)
    first, last = _mean(losses[:part]), _mean(losses[-part:])
    return (
        f"; the training loss went on from {first:.3g} to {last:.3g}" if last < 0.9 * first else ""
    )
