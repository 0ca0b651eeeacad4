"""Every figure that a net printed, as a series: its name, what it is, where it comes from.

This is what is drawn and told beside the displayed training loss and the learning rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from irv2caffe.log.accuracy import Kind, accuracy_names, better_of, kind_of
from irv2caffe.log.table import TrainRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from irv2caffe.log.table import Table


@dataclass(frozen=True)
class Metric:
    """One output of the training net or of a test net.

    Attributes:
        name: as the log prints it; ``NAME[k]`` for the elements of an output of several.
        kind: ``accuracy``, ``error``, ``loss`` or ``other``.
        phase: ``train`` (the last batch of the first GPU) or ``test`` (a mean over a test).
        net: which test net; 0 for ``train``.
        rank: ``top-1`` or ``top-5`` where the output is that.
        better: ``up``, ``down``, or None where it is not known.
        weight: a loss's weight, or None.
        iteration: integers, ascending.
        value: as many floats, as printed.
    """

    name: str
    kind: Kind
    phase: Literal["train", "test"]
    net: int
    rank: Literal["top-1", "top-5"] | None
    better: Literal["up", "down"] | None
    weight: float | None
    iteration: Sequence[int] = field(repr=False)
    value: Sequence[float] = field(repr=False)

    @property
    def is_fraction(self) -> bool:
        """Whether it is an accuracy or error whose values are shares, which are told in percent."""
        if self.kind not in {"accuracy", "error"}:
            return False
        finite = [value for value in self.value if math.isfinite(value)]
        return bool(finite) and min(finite) >= 0 and max(finite) <= 1.0001

    @property
    def best(self) -> tuple[int, float] | None:
        """Iteration and value of the best; None where nobody knows which is better."""
        pairs = [pair for pair in zip(self.iteration, self.value, strict=True) if _is_finite(pair)]
        if self.better is None or not pairs:
            return None
        return (max if self.better == "up" else min)(pairs, key=lambda pair: pair[1])


class Evidence(NamedTuple):
    """A run as rules look at it."""

    table: Table
    metrics: Sequence[Metric]


def metrics_of(table: Table) -> list[Metric]:
    """Every output of a run: those of the test nets first, each in the order of the log."""
    return [*_test_metrics(table), *_train_metrics(table)]


def _test_metrics(table: Table) -> Iterator[Metric]:
    found: dict[tuple[int, str], tuple[list[int], list[float]]] = {}
    for row in (*table.test, *table.other_tests):
        for name, value in row.outputs.items():
            iteration, values = found.setdefault((row.net, name), ([], []))
            iteration.append(row.iteration)
            values.append(value)
    for net in dict.fromkeys(net for net, _ in found):
        names = [name for one, name in found if one == net]
        ranks = _ranks(table, names, is_asked=bool(table.test) and net == table.test[0].net)
        for name in names:
            yield _metric(table, name, "test", net, ranks.get(name), *found[net, name])


def _train_metrics(table: Table) -> Iterator[Metric]:
    rows = table.train
    found: dict[str, tuple[Sequence[int], Sequence[float]]] = {}
    if isinstance(rows, TrainRows):
        kept = rows.outputs.items()
        found = {name: (one.iteration, one.means()) for name, one in kept if len(one)}
    else:
        listed: dict[str, tuple[list[int], list[float]]] = {}
        for row in rows:
            for name, value in row.outputs.items():
                iteration, values = listed.setdefault(name, ([], []))
                iteration.append(row.iteration)
                values.append(value)
        found.update(listed)
    ranks = _ranks(table, list(found), is_asked=False)
    for name, columns in found.items():
        yield _metric(table, name, "train", 0, ranks.get(name), *columns)


def _ranks(
    table: Table, names: Sequence[str], *, is_asked: bool
) -> Mapping[str, Literal["top-1", "top-5"]]:
    top1, top5 = accuracy_names(names, table.loss_weights)
    if is_asked:
        top1, top5 = table.names.top1 or top1, table.names.top5 or top5
    found: dict[str, Literal["top-1", "top-5"]] = {}
    if top5 is not None:
        found[top5] = "top-5"
    if top1 is not None:
        found[top1] = "top-1"
    return found


def _metric(
    table: Table,
    name: str,
    phase: Literal["train", "test"],
    net: int,
    rank: Literal["top-1", "top-5"] | None,
    iteration: Sequence[int],
    value: Sequence[float],
) -> Metric:
    weight = table.loss_weights.get(name, table.loss_weights.get(name.rpartition("[")[0]))
    kind = kind_of(name, weight)
    if rank is not None and kind == "other":
        kind = "accuracy"  # the caller says so
    better = better_of(name, kind)
    return Metric(name, kind, phase, net, rank, better, weight, iteration, value)


def _is_finite(pair: tuple[int, float]) -> bool:
    return math.isfinite(pair[1])
