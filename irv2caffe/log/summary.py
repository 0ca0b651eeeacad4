"""Summary: the main numbers of a run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from irv2caffe.log.anomalies import Anomaly, find_anomalies
from irv2caffe.log.loss_rules import first_diverged
from irv2caffe.log.metrics import RunData

if TYPE_CHECKING:
    from irv2caffe.log.metrics import Metric
    from irv2caffe.log.table import Table

_RECENT = 200  # displays that the rate and the time left are taken from


@dataclass(frozen=True)
class OutputSummary:
    """The last and best value of one net output, as printed.

    The first fields are those of :class:`~irv2caffe.log.metrics.Metric`; ``best`` is None
    if ``better`` is unknown.
    """

    name: str
    kind: str
    phase: str
    net: int
    rank: str | None
    better: str | None
    last: float
    best: float | None
    best_iteration: int | None
    best_epoch: float | None = None


@dataclass(frozen=True)
class Summary:
    """The main numbers of a run; errors in percent, None for values missing in the log.

    ``diverged`` is the first iteration at which the loss is not a number, or that of a head pinned
    at 87.3365. ``images_per_second`` is the median of the last displays. ``eta_hours`` is the
    time left at their pace, tests included; None for a run that has diverged.
    """

    iterations: int
    epochs: float | None
    last_top1_error: float | None
    last_top5_error: float | None
    best_top1_error: float | None
    best_top5_error: float | None
    best_iteration: int | None
    best_epoch: float | None
    last_loss: float | None
    lr: float | None
    images_per_second: float | None
    hours: float | None
    restarts: int
    diverged: int | None
    max_iter: int | None = None
    eta_hours: float | None = None
    images_per_iteration: int | None = None
    num_train_images: int | None = None
    ended: bool = False
    anomalies: tuple[Anomaly, ...] = field(default=())
    outputs: tuple[OutputSummary, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def summarize(table: Table) -> Summary:
    """The summary of a run."""
    train, test = table.train, table.test
    rated = [row for row in test if row.top1_error is not None and not math.isnan(row.top1_error)]
    best = min(rated, key=lambda row: row.top1_error or 0.0, default=None)
    top5 = [row.top5_error for row in test if row.top5_error is not None]
    last = train[-1] if train else None
    recent = train[-_RECENT:]
    rates = [row.images_per_second for row in recent if row.images_per_second]
    iterations = max(last.iteration if last else 0, test[-1].iteration if test else 0)
    run = RunData(table)
    diverged = first_diverged(run)
    return Summary(
        iterations=iterations,
        epochs=table.epoch(iterations),
        last_top1_error=test[-1].top1_error if test else None,
        last_top5_error=test[-1].top5_error if test else None,
        best_top1_error=best.top1_error if best else None,
        best_top5_error=min((error for error in top5 if not math.isnan(error)), default=None),
        best_iteration=best.iteration if best else None,
        best_epoch=best.epoch if best else None,
        last_loss=last.loss if last else None,
        lr=next((row.lr for row in reversed(recent) if row.lr is not None), None),
        images_per_second=median(rates) if rates else None,
        hours=_hours(table),
        restarts=len(table.restarts),
        diverged=diverged,
        max_iter=table.max_iter,
        eta_hours=_eta_hours(table, iterations) if diverged is None else None,
        images_per_iteration=table.images_per_iteration,
        num_train_images=table.num_train_images,
        ended=table.ended,
        anomalies=find_anomalies(run),
        outputs=tuple(_output(metric, table) for metric in run.metrics),
    )


def _output(metric: Metric, table: Table) -> OutputSummary:
    best = metric.best
    return OutputSummary(
        metric.name,
        metric.kind,
        metric.phase,
        metric.net,
        metric.rank,
        metric.better,
        metric.value[-1],
        best[1] if best else None,
        best[0] if best else None,
        table.epoch(best[0]) if best else None,
    )


def _hours(table: Table) -> float | None:
    last = [rows[-1].seconds for rows in (table.train, table.test) if rows]
    seconds = [value for value in last if value is not None]
    return max(seconds) / 3600 if seconds else None


def _eta_hours(table: Table, iterations: int) -> float | None:
    """Training time left, at the pace of the last displays, tests between them included."""
    recent = table.train[-_RECENT:]
    if table.ended or table.max_iter is None or len(recent) < 2:
        return None
    first, last = recent[0], recent[-1]
    steps = last.iteration - first.iteration
    if first.seconds is None or last.seconds is None or steps <= 0:
        return None
    step_s = (last.seconds - first.seconds) / steps
    return max(0, table.max_iter - iterations) * step_s / 3600
