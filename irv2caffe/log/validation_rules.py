"""Anomaly rules for tests: accuracies, collapse, overfitting, plateaus, swings, a late best."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate, pairwise
from statistics import median
from typing import TYPE_CHECKING

from irv2caffe.log.accuracy import errors_of
from irv2caffe.log.table import is_nonfinite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.log.metrics import Found, Metric, RunData

_PLATEAU_TESTS = 5
_PLATEAU_SHARE = 1 / 3
_PLATEAU_GAIN = 0.03  # relative improvement of the error; a plateau has less
_SOLVED = 1.0  # percent; a lower error can hardly improve
_COLLAPSE_TESTS = 2
_COLLAPSED = 1 / 3  # of the best value; a collapsed output stays below
_LEARNED = 0.1  # an accuracy; an output that never reached it cannot collapse
_RISING_TESTS = 6
_RISEN = 1.2  # times the lowest loss
_MIN_TESTS = 4
_MIN_SWING, _SWING_SHARE = 10.0, 0.3  # percent, and share of the usual error
_MIN_SWINGS, _SWINGS_SHARE = 2, 1 / 3  # of all changes; fewer may be chance
_MIN_LOSS, _LOSS_SHARE = 5.0, 0.3  # percent, and share of the best error; less may be chance


def perfect_accuracy(run: RunData) -> Iterator[Found]:
    """An accuracy of 1 because comparisons with NaN are false."""
    for row in run.table.test:
        is_diverged = row.loss is not None and is_nonfinite(row.loss)
        if is_diverged and any(error == 0 for error in errors_of(row.outputs).values()):
            yield (
                "perfect",
                row.iteration,
                "the accuracy is exactly 1 and the loss not a number: the net's outputs are NaN",
            )
            return


def collapsed_outputs(run: RunData) -> Iterator[Found]:
    """Outputs that were good, fell and stay low; one finding for all of them."""
    found = [pair for metric in run.metrics if (pair := _collapse(metric)) is not None]
    if found:
        place, text = min(found)
        more = len(found) - 1
        yield "collapse", place, text + (f"; {more:,} more output(s) collapsed too" if more else "")


def _collapse(metric: Metric) -> tuple[int, str] | None:
    if metric.phase != "test" or metric.better is None or metric.kind == "loss":
        return None
    pairs = [
        (int(at), 1 - value if metric.kind == "error" else value)
        for at, value in zip(metric.iteration, metric.value, strict=True)
        if math.isfinite(value)
    ]
    scores = [score for _, score in pairs]
    if metric.better == "down" and metric.kind == "other":
        return None
    if len(pairs) < 2 * _COLLAPSE_TESTS or not 0 <= min(scores) <= max(scores) <= 1.0001:
        return None
    best = max(scores)
    last_good = max(place for place, score in enumerate(scores) if score >= _COLLAPSED * best)
    if best < _LEARNED or len(scores) - 1 - last_good < _COLLAPSE_TESTS:
        return None
    values = [value for value in metric.value if math.isfinite(value)]
    at, value = pairs[last_good][0], values[last_good]
    text = (
        f"{metric.name} of the test was {value:.4g} at iteration {at:,} and is {values[-1]:.4g} now"
    )
    return pairs[last_good + 1][0], text


def overfitting(run: RunData) -> Iterator[Found]:
    """The loss of the test rises; it is overfitting where that of the training falls."""
    nets = {run.table.test[0].net} if run.table.test else set()
    losses = [
        metric
        for metric in run.metrics
        if metric.phase == "test" and metric.kind == "loss" and metric.net in nets
    ]
    main = max(losses, key=lambda metric: metric.weight or 0.0, default=None)
    if main is None or len(main.value) < _RISING_TESTS:
        return
    values = list(main.value)
    if not all(map(math.isfinite, values)) or min(values) <= 0:
        return
    low = min(range(len(values)), key=values.__getitem__)
    tail = values[-max(2, len(values) // 5) :]
    if len(values) - 1 - low < len(tail) + 1 or median(tail) < _RISEN * values[low]:
        return
    since = int(main.iteration[low])
    falling = _falling(run, since)
    text = f"{main.name} of the test rises: {values[low]:.3g} here, {values[-1]:.3g} now"
    yield "overfit" if falling else "rising", since, text + falling


def plateau(run: RunData) -> Iterator[Found]:
    """At least a third of the run in which the validation error hardly improved."""
    rows = _errors(run)
    errors = [error for _, error in rows]
    if len(rows) < 2 * _PLATEAU_TESTS or not all(map(math.isfinite, errors)):
        return
    best_after = list(accumulate(errors[::-1], min))[::-1]
    best_before = list(accumulate(errors, min))
    if best_before[-1] < _SOLVED or any(collapsed_outputs(run)):
        return
    for place in range(1, len(rows) - _PLATEAU_TESTS + 1):
        before, after = best_before[place - 1], best_after[place]
        if before - after <= _PLATEAU_GAIN * before:
            break
    else:
        return
    start, end = rows[place - 1][0], rows[-1][0]
    if end - start < _PLATEAU_SHARE * end:
        return
    text = (
        f"the validation error has hardly improved since: best {before:.1f} % until then, "
        f"{after:.1f} % since, {errors[-1]:.1f} % now"
    )
    yield "plateau", start, text + _falling(run, start)


def swinging_error(run: RunData) -> Iterator[Found]:
    """A validation error that jumps up and down from test to test, after the first quarter."""
    rows = _errors(run)
    rows = rows[len(rows) // 4 :]
    errors = [error for _, error in rows]
    if len(errors) < _MIN_TESTS or not all(map(math.isfinite, errors)):
        return
    least = max(_MIN_SWING, _SWING_SHARE * median(errors))
    changes = [after - before for before, after in pairwise(errors)]
    swings = [
        place
        for place, (one, other) in enumerate(pairwise(changes))
        if one * other < 0 and min(abs(one), abs(other)) >= least
    ]
    if len(swings) >= max(_MIN_SWINGS, _SWINGS_SHARE * (len(changes) - 1)):
        first = swings[0]
        text = (
            f"the validation error swings from test to test, between {min(errors[first:]):.1f} and "
            f"{max(errors[first:]):.1f} % since"
        )
        yield "swing", rows[first][0], text + _falling(run, rows[first][0])


def past_best(run: RunData) -> Iterator[Found]:
    """A validation error that was far lower than it is now."""
    rows = _errors(run)
    errors = [error for _, error in rows]
    if len(rows) < _MIN_TESTS or not all(map(math.isfinite, errors)):
        return
    at, best = min(rows, key=lambda row: row[1])
    if errors[-1] - best < max(_MIN_LOSS, _LOSS_SHARE * best) or any(collapsed_outputs(run)):
        return
    text = f"the validation error was {best:.1f} % here, and is {errors[-1]:.1f} % now"
    yield "past-best", at, text


def _errors(run: RunData) -> list[tuple[int, float]]:
    """Iteration and top-1 error of the tests, without the one before the training."""
    return [
        (row.iteration, row.top1_error)
        for row in run.table.test
        if row.top1_error is not None and row.iteration > 0
    ]


def _falling(run: RunData, since: int) -> str:
    """How the training loss went on falling meanwhile; empty if it did not."""
    first_place = bisect_left(run.iterations, since)
    losses = [loss for loss in run.losses[first_place:] if not is_nonfinite(loss)]
    if len(losses) < 4:
        return ""
    part = max(1, len(losses) // 10)
    first, last = math.fsum(losses[:part]) / part, math.fsum(losses[-part:]) / part
    return (
        f"; the training loss went on from {first:.3g} to {last:.3g}" if last < 0.9 * first else ""
    )
