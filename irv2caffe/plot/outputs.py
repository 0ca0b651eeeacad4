"""The lines of a figure for outputs that have no place of their own in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.plot.colors import COLORS
from irv2caffe.plot.curve import thinned
from irv2caffe.plot.style import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from irv2caffe.plot.curves import Curves
    from irv2caffe.plot.scalars import Scalar

MAX_OUTPUTS = 12  # lines of one run, beside its errors and its loss
_MAX_OF_MANY = 2  # where several runs are compared
_MAX_POINTS, _MAX_FEW, _MAX_MARKERS = 4000, 40, 100


def drawn_of(curves: Curves, *, single: bool) -> Sequence[Scalar]:
    """The outputs that a figure shows: of several runs, only what takes the place of the errors."""
    if single:
        return curves.scalars[:MAX_OUTPUTS]
    if curves.errors:
        return ()
    tested = [one for one in curves.scalars if one.metric.phase == "test"]
    return tested[:_MAX_OF_MANY] or [one for one in curves.scalars if one.side != "loss"][:1]


def draw_outputs(
    axes: Mapping[str, Axes], curves: Curves, prefix: str, color: str, *, single: bool
) -> None:
    """Lines of outputs, each on the scale that it belongs to.

    Args:
        axes: ``error``, ``loss`` and ``value``.
        curves: of a run.
        prefix: of labels.
        color: of the run.
        single: whether it is the only run; then each line has a colour of its own.
    """
    found = drawn_of(curves, single=single)
    for place, one in enumerate(found):
        line = thinned(one.curve, _MAX_POINTS)
        if not len(line.x):
            continue
        look: dict[str, Any] = {"linewidth": 1.0, "zorder": 2}
        if one.metric.phase == "test":
            look |= {
                "linewidth": 1.2,
                "marker": "D" if one.side == "loss" else "o",
                "markersize": 3.5 if len(line.x) <= _MAX_FEW else 2,
                "markevery": max(1, len(line.x) // _MAX_MARKERS),
                "markerfacecolor": "white",
            }
        elif len(line.x) == 1:
            look["marker"] = "."
        shade = COLORS[(place + 2) % len(COLORS)] if single else color
        style = ("-", "--", ":", "-.")[(place // 4 if single else place) % 4]
        last = f" ({line.y[-1]:.4g}{one.unit})" if one.metric.phase == "test" else ""
        label = plain(f"{prefix}{one.label}", 60) + last
        axes[one.side].plot(line.x, line.y, style, color=shade, label=label, **look)
    more = len(curves.scalars) - len(found)
    if single and more:
        axes["error"].plot([], [], " ", label=f"{more:,} more outputs: --html and --csv have them")
