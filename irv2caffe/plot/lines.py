"""Draws the lines of a figure: losses, errors, outputs, restarts and published curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.plot.curve import between, thinned
from irv2caffe.plot.style import COLORS, DIVERGED_COLOR, LOSS_COLOR, plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from irv2caffe.log.reference import Reference
    from irv2caffe.plot.curve import Curve
    from irv2caffe.plot.curves import Curves
    from irv2caffe.plot.output_curves import OutputCurve

MAX_POINTS = 4000
REFERENCE_SUFFIX = " (reference)"
_MAX_OUTPUTS = 12  # lines of one run, beside its errors and its loss
_MAX_OUTPUTS_OF_MANY = 2  # where several runs are compared
_MAX_FEW = 40  # points with large markers
_MAX_MARKERS = 100  # more would overlap


def draw_run(axes: Mapping[str, Axes], curves: Curves, color: str, *, single: bool) -> None:
    """Draws all lines of a run.

    Args:
        axes: ``error``, ``loss`` and ``value``.
        curves: of the run.
        color: of the run.
        single: whether it is the only run; then the loss is gray, and each output has a color.
    """
    main = axes["error"]
    prefix = "" if single else f"{plain(curves.name)}: "
    _draw_loss(axes["loss"], curves, prefix, LOSS_COLOR if single else color, single=single)
    shades = {"top-1": color, "top-5": COLORS[1] if single else color}
    for rank, curve in curves.errors.items():
        _draw_errors(main, curve, rank, shades[rank], f"{prefix}validation {rank} error")
    for (net, rank), curve in curves.other_errors.items() if single else ():
        label = f"test net #{net}: {rank} error"
        _draw_errors(
            main, curve, rank, COLORS[2 + (net + (rank == "top-5")) % 4], label, hollow=True
        )
    _draw_outputs(axes, curves, prefix, color, single=single)
    draw_marks(main, curves, prefix, color, single=single)


def _draw_errors(
    axis: Axes, curve: Curve, rank: str, color: str, label: str, *, hollow: bool = False
) -> None:
    """Draws validation errors in percent; the legend has the last value."""
    if not len(curve.x):
        return
    axis.plot(
        curve.x,
        curve.y,
        linestyle="-" if rank == "top-1" else "--",
        marker="o" if rank == "top-1" else "s",
        markersize=4.5 if len(curve.x) <= _MAX_FEW else 2.5,
        markevery=max(1, len(curve.x) // _MAX_MARKERS),
        markerfacecolor="white" if hollow else color,
        linewidth=1.4,
        color=color,
        label=f"{label} ({curve.y[-1]:.1f} %)",
        zorder=3,
    )


def _draw_loss(axis: Axes, curves: Curves, prefix: str, color: str, *, single: bool) -> None:
    """Draws the displayed loss; with many displays, in light colour under the moving average."""
    label = f"{prefix}training loss"
    raw = thinned(curves.loss, MAX_POINTS)
    if not len(raw.x):
        return
    line: dict[str, Any] = {"linewidth": 1.3, "linestyle": "-" if single else ":", "color": color}
    if curves.span == 1:
        if len(raw.x) > 10 * _MAX_FEW:
            line["linewidth"] = 0.7
        line["marker"] = "." if len(raw.x) == 1 else ""
        axis.plot(raw.x, raw.y, label=label, zorder=2, **line)
        return
    axis.plot(raw.x, raw.y, color=color, linewidth=0.6, alpha=0.3 if single else 0.15, zorder=1)
    smooth = thinned(curves.smooth, MAX_POINTS)
    label += f" (mean of {curves.span:,} displays)"
    axis.plot(smooth.x, smooth.y, label=label, zorder=2, **line)


def shown_outputs(curves: Curves, *, single: bool) -> Sequence[OutputCurve]:
    """The outputs that a figure shows: with several runs, only for runs without errors."""
    if single:
        return curves.outputs[:_MAX_OUTPUTS]
    if curves.errors:
        return ()
    tested = [one for one in curves.outputs if one.metric.phase == "test"]
    trained = [one for one in curves.outputs if one.side != "loss"]
    return tested[:_MAX_OUTPUTS_OF_MANY] or trained[:1]


def _draw_outputs(
    axes: Mapping[str, Axes], curves: Curves, prefix: str, color: str, *, single: bool
) -> None:
    """Draws each output on the axis that it belongs to."""
    found = shown_outputs(curves, single=single)
    for place, one in enumerate(found):
        line = thinned(one.curve, MAX_POINTS)
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
    more = len(curves.outputs) - len(found)
    if single and more:
        axes["error"].plot([], [], " ", label=f"{more:,} more outputs: --html and --csv have them")


def draw_marks(axis: Axes, curves: Curves, prefix: str, color: str, *, single: bool) -> None:
    """Draws restarts and the point of divergence."""
    for number, at in enumerate(curves.restarts):
        axis.axvline(
            at,
            color="#777777" if single else color,
            linewidth=1.0,
            linestyle=(0, (2, 3)),
            label=f"{prefix}restart" if number == 0 else None,
            zorder=1,
        )
    if curves.diverged is None:
        return
    at, unit = curves.diverged, "epoch" if curves.in_epochs else "iteration"
    axis.axvline(
        at,
        color=DIVERGED_COLOR,
        linewidth=1.4,
        label=f"{prefix}diverged at {unit} {at:,.4g}",
        zorder=2,
    )
    if single and curves.end > at:
        axis.axvspan(at, curves.end, color=DIVERGED_COLOR, alpha=0.07, linewidth=0, zorder=0)


def draw_reference(
    main: Axes, loss_axis: Axes, reference: Reference, color: str, visible: tuple[float, float]
) -> None:
    """Draws a published run as thin lines in the background, with one legend entry."""
    label: str | None = f"{reference.name}{REFERENCE_SUFFIX}"
    for metric, line in (("val_top1_error", "-"), ("val_top5_error", "--"), ("train_loss", ":")):
        axis = loss_axis if metric == "train_loss" else main
        points = reference.curves.get(metric, ())
        style: dict[str, Any] = {"color": color, "linestyle": line, "linewidth": 1.1, "zorder": 0.5}
        for _, value in (point for point in points if point[0] is None):
            axis.axhline(value, label=label, **style)
            label = None
        placed = [(epoch, value) for epoch, value in points if epoch is not None]
        line_inside = between(placed, *visible)
        if line_inside:
            x, y = zip(*line_inside, strict=True)
            axis.plot(x, y, label=label, **style)
            if len(placed) < 4:  # few single values rather than a curve
                axis.plot(*zip(*placed, strict=True), "x", markersize=4, color=color, zorder=0.5)
            label = None
