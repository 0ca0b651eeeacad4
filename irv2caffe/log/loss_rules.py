"""Anomaly rules for training: loss, learning rate and pauses in the log.

A loss of 87.3365 is -log of the smallest positive float, which SoftmaxWithLoss returns when the
outputs of the net have overflowed. In a net with several heads, the loss of one head may have this
value, and the displayed loss contains it times its weight.
"""

from __future__ import annotations

import math
from itertools import islice, pairwise
from statistics import median
from typing import TYPE_CHECKING

from irv2caffe.log.table import PINNED_LOSS, TrainRows, column, is_nonfinite, is_pinned

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from irv2caffe.log.metrics import Found, Metric, RunData
    from irv2caffe.log.table import Table

_MAX_STALLS = 5
_STALL_S = 300.0
_STALL_FACTOR = 20.0
_SAMPLES = 10_000
_MIN_DISPLAYS = 20  # fewer show no trend
_MAX_PARTS = 20
_MAX_START = 0.1  # share of the last iteration; later starts are resumed runs
_NUM_FIRST = 5  # displays that give the initial loss
_EXPLODED = 10.0  # times the initial loss
_STAYS = 0.5  # of the highest loss
_FELL = 0.7  # of the initial loss: a net with a lower loss has learned something
_CHANCE = 0.02  # relative distance from the loss of random guessing
_VANISHED_RATE = 1e-6  # of the highest: too small to change a 32-bit weight
_MAX_HEADS = 3
_PINNED_IN_A_ROW = 3  # displays; a single loss may equal a multiple of 87.3365 by chance


def nan_loss(run: RunData) -> Iterator[Found]:
    """The loss is not a number."""
    for iteration, loss in zip(run.iterations, run.losses, strict=True):
        if is_nonfinite(loss):
            yield "nan", int(iteration), f"the training loss is {loss:g}"
            return


def pinned_loss(run: RunData) -> Iterator[Found]:
    """The loss of the net or of a head is 87.3365, with or without its loss weight."""
    pinned = _first_pinned_display(run)
    if pinned is not None:
        iteration, weight = pinned
        value = f"{PINNED_LOSS}"
        if weight != 1:
            value = f"{weight * PINNED_LOSS:.6g}, which is {weight:g} x {PINNED_LOSS}"
        text = f"the training loss is pinned at {value}: the net's outputs have overflowed"
        yield "pinned", iteration, text
        return
    for name, iteration in _pinned_heads(run.metrics)[:_MAX_HEADS]:
        text = f"{name} is pinned at {PINNED_LOSS}: the outputs of this head have overflowed"
        yield "pinned", iteration, text


def _first_pinned_display(run: RunData) -> tuple[int, float] | None:
    """The first iteration with a pinned loss, and the weight it is displayed with."""
    for iteration, loss in zip(run.iterations, run.losses, strict=True):
        if is_pinned(loss):
            return int(iteration), 1.0
    weights = run.table.loss_weights.values()
    for weight in sorted({*weights, sum(weights)} - {0.0, 1.0}):
        level, count = weight * PINNED_LOSS, 0
        for place, loss in enumerate(run.losses):  # logs have six digits
            count = count + 1 if abs(loss - level) < 1e-5 * abs(level) else 0
            if count == _PINNED_IN_A_ROW:
                return int(run.iterations[place - count + 1]), weight
    return None


def _pinned_heads(metrics: Sequence[Metric]) -> list[tuple[str, int]]:
    """Name and first iteration of each pinned loss of the nets."""
    found: dict[str, int] = {}
    for metric in metrics:
        if metric.kind != "loss":
            continue
        pairs = zip(metric.iteration, metric.value, strict=True)
        first = next((at for at, value in pairs if is_pinned(value)), None)
        if first is not None:
            found[metric.name] = min(first, found.get(metric.name, first))
    return sorted(found.items(), key=lambda pair: pair[1])


def first_diverged(run: RunData) -> int | None:
    """The first iteration whose loss, or that of a head, is not a number or pinned."""
    found = [iteration for _, iteration, _ in nan_loss(run)]
    pinned = _first_pinned_display(run)
    found += [pinned[0]] if pinned else []
    found += [iteration for _, iteration in _pinned_heads(run.metrics)[:1]]
    return min(found, default=None)


def exploding_loss(run: RunData) -> Iterator[Found]:
    """A finite loss, not pinned, many times higher than the initial loss."""
    if _first_pinned_display(run) or _pinned_heads(run.metrics):
        return
    losses = run.losses
    first = [loss for loss in losses[:_NUM_FIRST] if not is_nonfinite(loss)]
    numbers = (
        [loss for loss in losses if not is_nonfinite(loss)] if _has_nonfinite(losses) else losses
    )
    if len(numbers) < 2 * _NUM_FIRST or not first:
        return
    usual = max(*first, median(numbers[: len(numbers) // 2]))
    if _jumps_for_good(numbers):
        usual = first[0]
    if usual <= 0 or max(numbers) <= _EXPLODED * usual:
        return
    high = [
        (loss, int(iteration))
        for iteration, loss in zip(run.iterations, losses, strict=True)
        if loss > _EXPLODED * usual and not is_nonfinite(loss)
    ]
    if high:
        top, top_at = max(high, key=lambda pair: pair[0])
        text = (
            f"the training loss rises to {top:.3g} (iteration {top_at:,}); "
            f"it began at {first[0]:.3g}"
        )
        if losses[-1] <= usual:
            text += f" and is {losses[-1]:.3g} again"
        yield "exploded", high[0][1], text


def _jumps_for_good(numbers: Sequence[float]) -> bool:
    """Whether the loss is many times its first value in all of the second half, without a fall."""
    means = _means(numbers)
    low = min(means[len(means) // 2 :])
    return low > _EXPLODED * numbers[0] and low > _STAYS * max(means)


def collapsed_loss(run: RunData) -> Iterator[Found]:
    """A loss that had fallen and returned to its initial value for the rest of the run."""
    losses = run.losses
    if len(losses) < _MIN_DISPLAYS or _has_nonfinite(losses):
        return
    means = _means(losses)
    start = max(_mean(losses[:_NUM_FIRST]), means[0])
    low = min(means)
    if start <= 0 or low > _FELL * start or not 0.9 * start <= means[-1] <= _EXPLODED * start:
        return
    half = (low + start) / 2
    place = next(place for place in reversed(range(len(losses))) if losses[place] < half) + 1
    if len(losses) - place < max(3, len(losses) // 50):
        return  # it may fall again
    text = (
        f"the training loss had fallen to {low:.4g} and is back at {means[-1]:.4g}; "
        f"it began at {start:.4g}"
    )
    yield "collapse", int(run.iterations[place]), text


def stuck_loss(run: RunData) -> Iterator[Found]:
    """A loss that has not fallen, or is that of random guessing.

    Runs whose log begins late are left out: they may have nothing left to learn.
    """
    losses, iterations, table = run.losses, run.iterations, run.table
    if len(losses) < _MIN_DISPLAYS or _has_nonfinite(losses):
        return
    if iterations[0] > _MAX_START * iterations[-1]:
        return
    quarter = len(losses) // 4
    first, last = _mean(losses[:quarter]), _mean(losses[-quarter:])
    heads, head_guess, guess = _heads(run), _guess_of_head(run), guessing_loss(run)
    is_guessing = bool(guess) and abs(last - guess) < _CHANCE * guess
    guess_text = f", which is guessing among {table.num_classes or 0:,} classes"
    if last >= 0.98 * first and min(_means(losses)) >= 0.9 * first:
        text = f"the training loss has not fallen: {first:.4g} at first, {last:.4g} now"
        yield "stuck", int(iterations[0]), text + (guess_text if is_guessing else "")
    elif is_guessing:
        yield "chance", int(iterations[-quarter]), f"the training loss is {last:.4g}{guess_text}"
    elif head_guess and len(heads) > 1:
        for head in heads[:_MAX_HEADS]:
            last_quarter = head.value[-max(1, len(head.value) // 4) :]
            mean = _mean(last_quarter)
            if len(head.value) >= _MIN_DISPLAYS and abs(mean - head_guess) < _CHANCE * head_guess:
                at = int(head.iteration[-len(last_quarter)])
                yield "chance", at, f"{head.name} is {mean:.4g}{guess_text}"


def guessing_loss(run: RunData) -> float:
    """The loss of a net that guesses at random, all heads together; 0 if classes are not known."""
    weights = [1.0 if one.weight is None else one.weight for one in _heads(run)]
    return _guess_of_head(run) * math.fsum(weights or [1.0])


def _heads(run: RunData) -> list[Metric]:
    return [one for one in run.metrics if (one.phase, one.kind) == ("train", "loss")]


def _guess_of_head(run: RunData) -> float:
    return math.log(max(run.table.num_classes or 1, 1))


def vanished_learning_rate(run: RunData) -> Iterator[Found]:
    """A learning rate too small to change a weight, long before the end."""
    pairs = [
        (iteration, rate)
        for iteration, rate in zip(run.iterations, column(run.table.train, "lr"), strict=True)
        if math.isfinite(rate)
    ]
    if len(pairs) < _MIN_DISPLAYS:
        return
    high = max(rate for _, rate in pairs)
    last_effective = next(
        place
        for place in reversed(range(len(pairs)))
        if pairs[place][1] > _VANISHED_RATE * high or not high
    )
    vanished = pairs[last_effective + 1 :]
    if len(vanished) < max(_NUM_FIRST, len(pairs) // 10):
        return
    text = (
        f"the learning rate has vanished: {high:.3g} at first, {vanished[0][1]:.3g} here, "
        f"{vanished[-1][1]:.3g} now"
    )
    yield "lr", int(vanished[0][0]), text


def stalls(run: RunData) -> Iterator[Found]:
    """Pauses: iterations between two displays, without a test, that took far longer than usual."""
    stride = len(run.table.train) // _SAMPLES + 1
    usual = median(
        [taken / steps for _, taken, steps in islice(_steps(run.table), 0, None, stride)] or [0]
    )
    pauses = [
        (iteration, taken, steps)
        for iteration, taken, steps in _steps(run.table)
        if taken > max(_STALL_S, _STALL_FACTOR * usual * steps)
    ]
    for iteration, taken, steps in sorted(pauses, key=lambda found: -found[1])[:_MAX_STALLS]:
        text = (
            f"nothing was logged for {taken / 60:,.0f} min; "
            f"{steps:,} iterations take {usual * steps:.3g} s"
        )
        yield "stall", iteration, text
    if len(pauses) > _MAX_STALLS:
        yield "stall", pauses[0][0], f"{len(pauses) - _MAX_STALLS:,} more such pauses"


def _steps(table: Table) -> Iterator[tuple[int, float, int]]:
    """Iteration of each display, and seconds and iterations since the previous one."""
    rows = table.train
    if isinstance(rows, TrainRows):
        columns = rows.columns
        for place, step_us in enumerate(columns.step_us):
            steps = columns.iteration[place] - columns.iteration[place - 1] if place else 0
            if step_us > 0 and steps > 0:
                yield columns.iteration[place], step_us / 1e6, steps
        return
    for before, after in pairwise(rows):
        if after.images_per_second and after.seconds is not None and before.seconds is not None:
            steps = max(1, after.iteration - before.iteration)
            yield after.iteration, after.seconds - before.seconds, steps


def _means(losses: Sequence[float]) -> list[float]:
    """The means of up to twenty consecutive parts of at least five displays each."""
    parts = min(_MAX_PARTS, len(losses) // _NUM_FIRST)
    edges = [len(losses) * part // parts for part in range(parts + 1)]
    return [_mean(losses[first:end]) for first, end in pairwise(edges)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _has_nonfinite(losses: Sequence[float]) -> bool:
    return any(map(is_nonfinite, losses))
