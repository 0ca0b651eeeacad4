"""Metrics: every output of the nets of a run as a series, with its kind and phase."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from irv2caffe.log.accuracy import Kind, accuracy_names, better_of, kind_of
from irv2caffe.log.table import TrainRows, column

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from irv2caffe.log.table import Table, TestRow, TrainRow

    _Series = tuple[Sequence[int], Sequence[float]]  # iterations and values

Phase = Literal["train", "test"]
Rank = Literal["top-1", "top-5"]
Found = tuple[str, int, str]  # what a rule for anomalies yields: kind, iteration, text


@dataclass(frozen=True)
class Metric:
    """One output of the training net or of a test net.

    Attributes:
        name: as printed in the log; ``NAME[k]`` for element k of an output with several elements.
        kind: ``accuracy``, ``error``, ``loss`` or ``other``.
        phase: ``train`` (the last batch of the first GPU) or ``test`` (a mean over a test).
        net: index of the test net; 0 for ``train``.
        rank: ``top-1`` or ``top-5``, or None for other outputs.
        better: ``up`` or ``down`` (higher or lower is better), or None if unknown.
        weight: a loss's weight, or None.
        iteration: integers, ascending.
        value: one float for each iteration, as printed.
    """

    name: str
    kind: Kind
    phase: Phase
    net: int
    rank: Rank | None
    better: Literal["up", "down"] | None
    weight: float | None
    iteration: Sequence[int] = field(repr=False)
    value: Sequence[float] = field(repr=False)

    @property
    def is_fraction(self) -> bool:
        """Whether it is an accuracy or error with values from 0 to 1, shown in percent."""
        if self.kind not in {"accuracy", "error"}:
            return False
        finite = [value for value in self.value if math.isfinite(value)]
        return bool(finite) and min(finite) >= 0 and max(finite) <= 1.0001

    @property
    def best(self) -> tuple[int, float] | None:
        """Iteration and value of the best one; None if ``better`` is unknown."""
        pairs = [
            (iteration, value)
            for iteration, value in zip(self.iteration, self.value, strict=True)
            if math.isfinite(value)
        ]
        if self.better is None or not pairs:
            return None
        return (max if self.better == "up" else min)(pairs, key=lambda pair: pair[1])


@dataclass(frozen=True)
class RunData:
    """The input of anomaly rules: rows, metrics and columns of a run.

    Attributes:
        table: its rows.
    """

    table: Table

    @cached_property
    def metrics(self) -> list[Metric]:
        """The outputs of the nets."""
        return metrics_of(self.table)

    @property
    def iterations(self) -> Sequence[float]:
        """The iterations of the displays."""
        return column(self.table.train, "iteration")

    @property
    def losses(self) -> Sequence[float]:
        """The losses of the displays."""
        return column(self.table.train, "loss")


def metrics_of(table: Table) -> list[Metric]:
    """Every output of a run: those of the test nets first, each in the order of the log."""
    return [*_test_metrics(table), *_train_metrics(table)]


def _test_metrics(table: Table) -> Iterator[Metric]:
    tests = (*table.test, *table.other_tests)
    for net in dict.fromkeys(row.net for row in tests):
        found = _outputs([row for row in tests if row.net == net])
        ranks = _ranks(table, list(found), use_given=bool(table.test) and net == table.test[0].net)
        for name, series in found.items():
            yield _metric(table, name, "test", net, ranks.get(name), series)


def _train_metrics(table: Table) -> Iterator[Metric]:
    rows = table.train
    if isinstance(rows, TrainRows):
        kept = rows.outputs.items()
        found: dict[str, _Series] = {
            name: (one.iteration, one.values()) for name, one in kept if len(one)
        }
    else:
        found = _outputs(rows)
    ranks = _ranks(table, list(found), use_given=False)
    for name, series in found.items():
        yield _metric(table, name, "train", 0, ranks.get(name), series)


def _outputs(rows: Sequence[TrainRow] | Sequence[TestRow]) -> dict[str, _Series]:
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        for name, value in row.outputs.items():
            iteration, values = found.setdefault(name, ([], []))
            iteration.append(row.iteration)
            values.append(value)
    return dict(found)


def _ranks(table: Table, names: Sequence[str], *, use_given: bool) -> Mapping[str, Rank]:
    """The rank of each output that has one; names given by the caller apply if ``use_given``."""
    top1, top5 = accuracy_names(names, table.loss_weights)
    if use_given:
        top1, top5 = table.names.top1 or top1, table.names.top5 or top5
    found: dict[str, Rank] = {}
    if top5 is not None:
        found[top5] = "top-5"
    if top1 is not None:
        found[top1] = "top-1"
    return found


def _metric(
    table: Table, name: str, phase: Phase, net: int, rank: Rank | None, series: _Series
) -> Metric:
    weight = table.loss_weights.get(name, table.loss_weights.get(name.rpartition("[")[0]))
    kind = kind_of(name, weight)
    if rank is not None and kind == "other":
        kind = "accuracy"  # named as one by the caller
    return Metric(name, kind, phase, net, rank, better_of(name, kind), weight, *series)
