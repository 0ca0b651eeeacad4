"""Sets the scales of a figure: limits, logarithmic axes and tick labels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.ticker import LogLocator, StrMethodFormatter

from irv2caffe.plot.curves import loss_top

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

    from irv2caffe.plot.curves import Curves
    from irv2caffe.plot.style import PlotOptions


_AFTER = 1.05  # the end of a logarithmic axis, times the last place


def visible(shown: Sequence[Curves], options: PlotOptions) -> tuple[float, float]:
    """The first and last place on the x axis."""
    low, high = options.window or (None, None)
    first = min(curves.start for curves in shown) if low is None else low
    last = max(curves.end for curves in shown) if high is None else high
    return first, last


def set_scales(main: Axes, loss_axis: Axes, shown: Sequence[Curves], options: PlotOptions) -> None:
    """Sets limits to the window, or to the whole run including zero and a margin."""
    low, high = visible(shown, options)
    margin = (0.008 if options.window else 0.015) * (high - low)  # for the markers at the ends
    for name, axis in (("loss", loss_axis), ("error", main)):
        if name in options.log_axes and math.isfinite(axis.dataLim.minposy):
            axis.set_yscale("log")
            plain_numbers(axis.yaxis)
            continue
        if axis is loss_axis:
            _cut_off_explosion(axis, shown)
        if options.window is None:
            _show_zero(axis)
    if "x" in options.log_axes and high > 0:
        main.set_xlim(high / 1000, _AFTER * high)  # for runs without a place above zero
        main.set_xscale("log")
        plain_numbers(main.xaxis)
        first = [curve.x[curve.x > 0][:1] for curves in shown for curve in (curves.loss,)]
        low = min((float(x[0]) for x in first if len(x)), default=high / 1000)
        margin, high = 0.0, _AFTER * high
    if high > low:
        main.set_xlim(low - margin, high + margin)


def _cut_off_explosion(axis: Axes, shown: Sequence[Curves]) -> None:
    """Limits the axis to the loss before it exploded; its label has the highest loss."""
    top = loss_top(shown)
    if top is None:
        return
    losses = [one.loss.y for one in shown]
    losses += [out.curve.y for one in shown for out in one.outputs if out.side == "loss"]
    lowest = min(float(values.min(initial=top)) for values in losses)
    highest = max(float(values.max(initial=top)) for values in losses)
    axis.set_ylim(lowest - 0.04 * (top - lowest), top)
    begins = any(len(one.loss.y) and one.loss.y[0] == highest for one in shown)
    axis.set_ylabel(f"{axis.get_ylabel()} ({'begins at' if begins else 'rises to'} {highest:.3g})")


def _show_zero(axis: Axes) -> None:
    low, high = axis.get_ylim()
    if axis.dataLim.ymin < 0:
        axis.set_ylim(low, max(high, -0.02 * low))
    else:
        axis.set_ylim(-0.02 * high, high)


def plain_numbers(axis: Axis) -> None:
    """Labels ticks as plain numbers, such as 0.2, instead of powers of ten."""
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.set_minor_formatter(StrMethodFormatter("{x:g}"))
