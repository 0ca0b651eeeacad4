"""Where a net is lost: a loss that is no number, or of 87.3365.

That is -log of the smallest positive float, which SoftmaxWithLoss says when the net's outputs have
overflowed. A net of several heads shows it in one of them, and a displayed loss holds it by its
weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.log.table import PINNED_LOSS, column, is_lost, is_pinned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.log.metrics import Metric
    from irv2caffe.log.table import Table

_IN_A_ROW = 3  # displays of a multiple of it, which a loss may hit by chance


def pinned_display(table: Table) -> tuple[int, float] | None:
    """The first iteration that displays it, and the weight that it is displayed with."""
    iterations, losses = column(table.train, "iteration"), column(table.train, "loss")
    for place, loss in enumerate(losses):
        if is_pinned(loss):
            return int(iterations[place]), 1.0
    weights = set(table.loss_weights.values()) | {sum(table.loss_weights.values())}
    for weight in sorted(weights - {0.0, 1.0}):
        begin = _run_of(losses, weight * PINNED_LOSS)
        if begin is not None:
            return int(iterations[begin]), weight
    return None


def _run_of(losses: Sequence[float], level: float) -> int | None:
    """Where several in a row are at a level; logs have six digits."""
    count = 0
    for place, loss in enumerate(losses):
        count = count + 1 if abs(loss - level) < 1e-5 * abs(level) else 0
        if count == _IN_A_ROW:
            return place - count + 1
    return None


def pinned_heads(metrics: Sequence[Metric]) -> list[tuple[str, int]]:
    """Name and first iteration of each loss of a net that is pinned."""
    found: dict[str, int] = {}
    for metric in metrics:
        if metric.kind != "loss":
            continue
        pairs = zip(metric.iteration, metric.value, strict=True)
        first = next((at for at, value in pairs if is_pinned(value)), None)
        if first is not None:
            found[metric.name] = min(first, found.get(metric.name, first))
    return sorted(found.items(), key=lambda pair: pair[1])


def first_diverged(table: Table, metrics: Sequence[Metric]) -> int | None:
    """The first iteration whose loss says that the net, or a head of it, is lost."""
    pairs = zip(column(table.train, "iteration"), column(table.train, "loss"), strict=True)
    lost = next((int(iteration) for iteration, loss in pairs if is_lost(loss)), None)
    shown = pinned_display(table)
    found = [lost, shown[0] if shown else None, *(at for _, at in pinned_heads(metrics)[:1])]
    return min((at for at in found if at is not None), default=None)
