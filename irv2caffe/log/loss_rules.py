"""Rules about the training: its loss, its learning rate, its rhythm."""

from __future__ import annotations

import math
from itertools import islice, pairwise
from statistics import median
from typing import TYPE_CHECKING

from irv2caffe.log.divergence import pinned_display, pinned_heads
from irv2caffe.log.table import PINNED_LOSS, TrainRows, column, is_lost

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from irv2caffe.log.metrics import Evidence, Metric
    from irv2caffe.log.table import Table

Found = tuple[str, int, str]  # kind, iteration, text

_MAX_STALLS = 5
_STALL_S = 300.0
_STALL_FACTOR = 20.0
_SAMPLES = 10_000
_MIN_DISPLAYS = 20  # fewer say nothing of a course
_MAX_PARTS = 20
_BEGINNING = 0.1  # of what the log shows
_FIRST = 5  # displays that show how high a loss begins
_EXPLODED = 10.0  # times that
_FELL = 0.7  # of the beginning: a loss that was below has learned something
_CHANCE = 0.02  # of the loss of guessing: nearer is guessing
_RATE_GONE = 1e-6  # of the highest rate: an update of it changes no weight of 32 bits
_MAX_HEADS = 3


def lost(run: Evidence) -> Iterator[Found]:
    """The loss is no number."""
    iterations, losses = column(run.table.train, "iteration"), column(run.table.train, "loss")
    place = next((place for place, loss in enumerate(losses) if is_lost(loss)), None)
    if place is not None:
        yield "nan", int(iterations[place]), f"the training loss is {losses[place]:g}"


def pinned(run: Evidence) -> Iterator[Found]:
    """A loss of 87.3365, of the whole net or of a head, as it is or as it is weighted."""
    shown = pinned_display(run.table)
    if shown is not None:
        iteration, weight = shown
        if weight == 1:
            text = (
                f"the training loss is pinned at {PINNED_LOSS}: the net's outputs have overflowed"
            )
        else:
            value = weight * PINNED_LOSS
            text = (
                f"the training loss is pinned at {value:.6g}, which is {weight:g} x {PINNED_LOSS}: "
                "the net's outputs have overflowed"
            )
        yield "pinned", iteration, text
        return
    for name, iteration in pinned_heads(run.metrics)[:_MAX_HEADS]:
        text = f"{name} is pinned at {PINNED_LOSS}: the outputs of this head have overflowed"
        yield "pinned", iteration, text


def exploded(run: Evidence) -> Iterator[Found]:
    """A loss many times higher than where it began, though it is a number and not pinned."""
    if pinned_display(run.table) or pinned_heads(run.metrics):
        return
    iterations, losses = column(run.table.train, "iteration"), column(run.table.train, "loss")
    begun = [loss for loss in losses[:_FIRST] if not is_lost(loss)]
    numbers = [loss for loss in losses if not is_lost(loss)] if _has_lost(losses) else losses
    if len(numbers) < 2 * _FIRST or not begun:
        return
    usual = max(*begun, median(numbers[: len(numbers) // 2]))
    if usual <= 0 or max(numbers) <= _EXPLODED * usual:
        return
    high = [
        (loss, int(iteration))
        for iteration, loss in zip(iterations, losses, strict=True)
        if loss > _EXPLODED * usual and not is_lost(loss)
    ]
    if high:
        top, top_at = max(high, key=lambda pair: pair[0])
        text = (
            f"the training loss rises to {top:.3g} (iteration {top_at:,}); "
            f"it began at {begun[0]:.3g}"
        )
        if losses[-1] <= usual:
            text += f" and is {losses[-1]:.3g} again"
        yield "exploded", high[0][1], text


def fell_back(run: Evidence) -> Iterator[Found]:
    """A loss that had fallen and is back where it began, to stay there."""
    iterations, losses = column(run.table.train, "iteration"), column(run.table.train, "loss")
    if len(losses) < _MIN_DISPLAYS or _has_lost(losses):
        return
    means = _means(losses)
    begun = max(_mean(losses[:_FIRST]), means[0])
    low = min(means)
    if begun <= 0 or low > _FELL * begun or not 0.9 * begun <= means[-1] <= _EXPLODED * begun:
        return
    half = (low + begun) / 2
    place = next(place for place in reversed(range(len(losses))) if losses[place] < half) + 1
    if len(losses) - place < max(3, len(losses) // 50):
        return  # not yet to stay
    text = (
        f"the training loss had fallen to {low:.4g} and is back at {means[-1]:.4g}; "
        f"it began at {begun:.4g}"
    )
    yield "collapse", int(iterations[place]), text


def not_learning(run: Evidence) -> Iterator[Found]:
    """A loss that is where it began, or that of guessing.

    What was resumed late may have nothing left to learn.
    """
    losses, iterations = column(run.table.train, "loss"), column(run.table.train, "iteration")
    if len(losses) < _MIN_DISPLAYS or _has_lost(losses):
        return
    if iterations[0] > _BEGINNING * iterations[-1]:
        return
    quarter = len(losses) // 4
    first, last = _mean(losses[:quarter]), _mean(losses[-quarter:])
    guess = _loss_of_guessing(run.table, run.metrics)
    guesses = guess is not None and abs(last - guess) < _CHANCE * guess
    told = f", which is guessing among {run.table.num_classes:,} classes" if guesses else ""
    if last >= 0.98 * first and min(_means(losses)) >= 0.9 * first:
        text = f"the training loss has not fallen: {first:.4g} at first, {last:.4g} now{told}"
        yield "stuck", int(iterations[0]), text
    elif guesses:
        yield "chance", int(iterations[-quarter]), f"the training loss is {last:.4g}{told}"
    else:
        yield from _guessing_heads(run.table, run.metrics)


def _guessing_heads(table: Table, metrics: Sequence[Metric]) -> Iterator[Found]:
    """Heads of several whose own loss is that of guessing."""
    if not table.num_classes or table.num_classes < 2:
        return
    guess = math.log(table.num_classes)
    heads = [one for one in metrics if (one.phase, one.kind) == ("train", "loss")]
    for head in heads[:_MAX_HEADS] if len(heads) > 1 else ():
        quarter = head.value[-max(1, len(head.value) // 4) :]
        if len(head.value) >= _MIN_DISPLAYS and abs(_mean(quarter) - guess) < _CHANCE * guess:
            text = (
                f"{head.name} is {_mean(quarter):.4g}, which is guessing among "
                f"{table.num_classes:,} classes"
            )
            yield "chance", int(head.iteration[-len(quarter)]), text


def _loss_of_guessing(table: Table, metrics: Sequence[Metric]) -> float | None:
    """Of all heads together, by their weights."""
    if not table.num_classes or table.num_classes < 2:
        return None
    heads = [one for one in metrics if (one.phase, one.kind) == ("train", "loss")]
    weights = [1.0 if one.weight is None else one.weight for one in heads] or [1.0]
    return math.log(table.num_classes) * math.fsum(weights) or None


def rate_gone(run: Evidence) -> Iterator[Found]:
    """A learning rate so small that nothing is learned any more, long before the end."""
    rows = run.table.train
    rates = rows.columns.lr if isinstance(rows, TrainRows) else [row.lr for row in rows]
    pairs = [
        (iteration, rate)
        for iteration, rate in zip(column(rows, "iteration"), rates, strict=True)
        if rate is not None and math.isfinite(rate)
    ]
    if len(pairs) < _MIN_DISPLAYS:
        return
    high = max(rate for _, rate in pairs)
    alive = next(
        place
        for place in reversed(range(len(pairs)))
        if pairs[place][1] > _RATE_GONE * high or not high
    )
    gone = pairs[alive + 1 :]
    if len(gone) < max(_FIRST, len(pairs) // 10):
        return
    text = (
        f"the learning rate is gone: {high:.3g} at first, {gone[0][1]:.3g} here, "
        f"{gone[-1][1]:.3g} now"
    )
    yield "lr", int(gone[0][0]), text


def stalled(run: Evidence) -> Iterator[Found]:
    """Displays, without a test between them, whose iterations took far longer than usual."""
    every = len(run.table.train) // _SAMPLES + 1
    usual = median(
        [taken / steps for _, taken, steps in islice(_steps(run.table), 0, None, every)] or [0]
    )
    long = [
        (iteration, taken, steps)
        for iteration, taken, steps in _steps(run.table)
        if taken > max(_STALL_S, _STALL_FACTOR * usual * steps)
    ]
    for iteration, taken, steps in sorted(long, key=lambda found: -found[1])[:_MAX_STALLS]:
        text = (
            f"nothing was logged for {taken / 60:,.0f} min; "
            f"{steps:,} iterations take {usual * steps:.3g} s"
        )
        yield "stall", iteration, text
    if len(long) > _MAX_STALLS:
        yield "stall", long[0][0], f"{len(long) - _MAX_STALLS:,} more such pauses"


def _steps(table: Table) -> Iterator[tuple[int, float, int]]:
    """Iteration, and seconds and iterations since the display before."""
    rows = table.train
    if isinstance(rows, TrainRows):
        kept = rows.columns
        for place, step_us in enumerate(kept.step_us):
            steps = kept.iteration[place] - kept.iteration[place - 1] if place else 0
            if step_us > 0 and steps > 0:
                yield kept.iteration[place], step_us / 1e6, steps
        return
    for before, after in pairwise(rows):
        if after.images_per_second and after.seconds is not None and before.seconds is not None:
            steps = max(1, after.iteration - before.iteration)
            yield after.iteration, after.seconds - before.seconds, steps


def _means(losses: Sequence[float]) -> list[float]:
    """Of up to twenty parts, one after the other; fewer where that would be of single displays."""
    parts = min(_MAX_PARTS, len(losses) // _FIRST)
    edges = [len(losses) * part // parts for part in range(parts + 1)]
    return [_mean(losses[first:end]) for first, end in pairwise(edges)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _has_lost(losses: Sequence[float]) -> bool:
    return any(map(is_lost, losses))
