"""OutputCurve: a net output as a curve on one of the axes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from irv2caffe.log.table import MAX_LOSS
from irv2caffe.plot.curve import Curve, Window, moving_average, span_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from irv2caffe.log.metrics import Metric

Array = Any  # of numpy
Side = Literal["error", "loss", "value"]


@dataclass(frozen=True)
class OutputCurve:
    """One output of a net.

    Attributes:
        metric: the output.
        curve: errors in percent, other values as printed; of training batches, averaged.
        side: the axis that it belongs to: ``error`` (percent), ``loss`` or ``value``.
    """

    metric: Metric
    curve: Curve
    side: Side

    @property
    def label(self) -> str:
        """The name for the legend."""
        metric = self.metric
        name = f"error of {metric.name}" if self.side == "error" else metric.name
        if metric.phase == "train":
            return f"training {name} (one batch, averaged)"
        if metric.net:
            return f"test net #{metric.net}: {name}"
        return f"test {name}" if self.side == "value" else f"validation {name}"

    @property
    def unit(self) -> str:
        """The unit after a value."""
        return " %" if self.side == "error" else ""

    @property
    def better(self) -> str | None:
        """Whether higher (``up``) or lower (``down``) values of the curve are better, or None."""
        return "down" if self.side != "value" else self.metric.better

    def cut(self, window: Window) -> OutputCurve:
        """The part inside of a window."""
        return replace(self, curve=self.curve.cut(window))


def output_curves(
    metrics: Sequence[Metric], place: Callable[[Array], Array]
) -> Iterator[OutputCurve]:
    """All outputs except top-1 and top-5 errors and a single training loss.

    Args:
        metrics: of a run.
        place: from iterations to places on the axis.
    """
    losses = [metric for metric in metrics if (metric.phase, metric.kind) == ("train", "loss")]
    for metric in metrics:
        if metric.phase == "test" and metric.rank is not None and metric.is_fraction:
            continue
        if [metric] == losses and metric.weight in {None, 1.0}:
            continue  # the displayed loss, before averaging
        value = np.array(metric.value, float)
        good = np.abs(value) <= MAX_LOSS
        x, y = place(np.array(metric.iteration, float)[good]), value[good]
        side: Side = "loss" if metric.kind == "loss" else "value"
        if metric.is_fraction:
            side, y = "error", 100 * (y if metric.kind == "error" else 1 - y)
        if metric.phase == "train" and len(y):
            y = moving_average(y, span_of(len(y)))
        if len(y):
            yield OutputCurve(metric, Curve(x, y), side)
