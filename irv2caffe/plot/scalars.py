"""Every output of a run's nets, as a curve with a scale to stand on."""

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


@dataclass(frozen=True)
class Scalar:
    """One output.

    Attributes:
        metric: what it is.
        curve: errors in percent, everything else as printed; of a training batch, averaged.
        side: the scale that it belongs to: ``error`` (percent), ``loss`` or ``value``.
    """

    metric: Metric
    curve: Curve
    side: Literal["error", "loss", "value"]

    @property
    def label(self) -> str:
        """What it is called: by the name in the log."""
        metric = self.metric
        what = f"error of {metric.name}" if self.side == "error" else metric.name
        if metric.phase == "train":
            return f"training {what} (one batch, averaged)"
        if metric.net:
            return f"test net #{metric.net}: {what}"
        return f"validation {what}" if self.side == "error" else f"test {what}"

    @property
    def unit(self) -> str:
        """Behind a value."""
        return " %" if self.side == "error" else ""

    def cut(self, window: Window) -> Scalar:
        """What lies inside of a window."""
        return replace(self, curve=self.curve.cut(window))


def scalars_of(metrics: Sequence[Metric], place: Callable[[Array], Array]) -> tuple[Scalar, ...]:
    """All outputs but the errors that a table has rows of, and the only loss of the training.

    Args:
        metrics: of a run.
        place: from iterations to places.
    """
    return tuple(_scalars(metrics, place))


def _scalars(metrics: Sequence[Metric], place: Callable[[Array], Array]) -> Iterator[Scalar]:
    losses = [metric for metric in metrics if (metric.phase, metric.kind) == ("train", "loss")]
    for metric in metrics:
        if metric.phase == "test" and metric.rank is not None and metric.is_fraction:
            continue
        if [metric] == losses and metric.weight in {None, 1.0}:
            continue  # that is what is displayed, before the averaging
        value = np.array(metric.value, float)
        good = np.abs(value) <= MAX_LOSS
        x, y = place(np.array(metric.iteration, float)[good]), value[good]
        side: Literal["error", "loss", "value"] = "loss" if metric.kind == "loss" else "value"
        if metric.is_fraction:
            side, y = "error", 100 * (y if metric.kind == "error" else 1 - y)
        if metric.phase == "train" and len(y):
            y = moving_average(y, span_of(len(y)))
        if len(y):
            yield Scalar(metric, Curve(x, y), side)
