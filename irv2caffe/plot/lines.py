"""Draws the lines of a figure: losses, errors, outputs, restarts and published curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.plot.curve import best_point, between, thinned
from irv2caffe.plot.style import (
    COLORS,
    DIVERGED_COLOR,
    ERROR_COLORS,
    LOSS_COLOR,
    LOSS_STYLES,
    MARKERS,
    RESTART_COLOR,
    TEST_LOSS_COLOR,
    plain,
)

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
_MAX_RUNS_WITH_LOSS = 3  # more test losses would hide the other lines
_MAX_FEW = 40  # points with large markers
_MAX_MARKERS = 100  # more would overlap


@dataclass(frozen=True)
class Look:
    """How a run is drawn.

    Attributes:
        place: its number among the runs of the figure.
        single: whether it is the only one; then each kind of curve has a color of its own.
        num_runs: number of runs in the figure.
        prefix: of its legend entries.
        color: of the run in a comparison.
        marker: of the run in a comparison.
    """

    place: int
    single: bool
    num_runs: int
    prefix: str
    color: str
    marker: str


def look_of(place: int, name: str, num_runs: int) -> Look:
    """The look of a run, by its number among the runs."""
    single = num_runs == 1
    prefix = "" if single else f"{plain(name)}: "
    color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
    return Look(place, single, num_runs, prefix, color, marker)


def draw_run(axes: Mapping[str, Axes], curves: Curves, look: Look) -> None:
    """Draws all lines of a run.

    Args:
        axes: ``error``, ``loss`` and ``value``.
        curves: of the run.
        look: of the run.
    """
    main, single = axes["error"], look.single
    _draw_loss(axes["loss"], curves, look)
    what = "validation " if single else ""
    for rank, curve in curves.errors.items():
        color = ERROR_COLORS[rank] if single else look.color
        _draw_errors(main, curve, rank, color, f"{look.prefix}{what}{rank} error", look)
    for (net, rank), curve in curves.other_errors.items() if single else ():
        label = f"test net #{net}: {rank} error"
        shade = COLORS[2 + (net + (rank == "top-5")) % 4]
        _draw_errors(main, curve, rank, shade, label, look, hollow=True)
    _draw_outputs(axes, curves, look)
    _draw_best(axes, curves, look)
    draw_marks(main, curves, look.prefix, look.color, single=single)


def _figures(curve: Curve, better: str | None, form: str, unit: str = "") -> str:
    """The last and the best value of a curve, for the legend."""
    best, last = best_point(curve, better), format(float(curve.y[-1]), form)
    if best is None:
        return f" ({last}{unit})"
    return f" (last {last}, best {format(best[1], form)}{unit})"


def _draw_errors(
    axis: Axes,
    curve: Curve,
    rank: str,
    color: str,
    label: str,
    look: Look,
    *,
    hollow: bool = False,
) -> None:
    """Draws validation errors in percent; the legend has the last and the best value."""
    if not len(curve.x):
        return
    marker = ("o" if rank == "top-1" else "s") if look.single else look.marker
    is_hollow = hollow or (not look.single and rank == "top-5")
    axis.plot(
        curve.x,
        curve.y,
        linestyle="-" if rank == "top-1" else "--",
        marker=marker,
        markersize=4.5 if len(curve.x) <= _MAX_FEW else 2.5,
        markevery=max(1, len(curve.x) // _MAX_MARKERS),
        markerfacecolor="white" if is_hollow else color,
        linewidth=1.4,
        color=color,
        label=f"{label}{_figures(curve, 'down', '.1f', ' %')}",
        zorder=3,
    )


def _draw_best(axes: Mapping[str, Axes], curves: Curves, look: Look) -> None:
    """Marks the best point: of the top-1 error, or else of the only output of the tests."""
    tested = [one for one in curves.outputs if one.metric.phase == "test" and one.better]
    better: str | None
    if "top-1" in curves.errors:
        axis, better, unit, form = axes["error"], "down", " %", ".1f"
        curve = curves.errors["top-1"]
        color = ERROR_COLORS["top-1"] if look.single else look.color
    elif len(tested) == 1 and look.single:
        one = tested[0]
        axis, curve, better, unit, form = axes[one.side], one.curve, one.better, one.unit, ".4g"
        color = TEST_LOSS_COLOR if one.side == "loss" else COLORS[2]
    else:
        return
    best = best_point(curve, better)
    if best is None or len(curve.y) < 2:
        return
    unit_x = "epoch" if curves.in_epochs else "iteration"
    label = f"best: {format(best[1], form)}{unit} at {unit_x} {best[0]:,.4g}"
    axis.plot(
        *([best[0]], [best[1]]),
        linestyle="none",
        marker="*",
        markersize=13,
        markerfacecolor=color,
        markeredgecolor="white",
        markeredgewidth=0.9,
        label=f"{look.prefix}{label}",
        zorder=5,
    )


def _draw_loss(axis: Axes, curves: Curves, look: Look) -> None:
    """Draws the displayed loss; with many displays, in light colour under the moving average."""
    label, single = f"{look.prefix}training loss", look.single
    raw = thinned(curves.loss, MAX_POINTS)
    if not len(raw.x):
        return
    color = LOSS_COLOR if single else look.color
    style = "-" if single else LOSS_STYLES[look.place % len(LOSS_STYLES)]
    line: dict[str, Any] = {"linewidth": 1.3, "linestyle": style, "color": color}
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


def shown_outputs(curves: Curves, *, single: bool, num_runs: int = 1) -> Sequence[OutputCurve]:
    """The outputs that a figure shows: with several runs, few of each.

    Args:
        curves: of the run.
        single: whether it is the only one.
        num_runs: number of runs in the figure.
    """
    if single:
        return curves.outputs[:_MAX_OUTPUTS]
    tested = [one for one in curves.outputs if one.metric.phase == "test"]
    if curves.errors:
        losses = [one for one in tested if one.side == "loss" and not one.metric.net]
        main = max(losses, key=lambda one: one.metric.weight or 0.0, default=None)
        return (main,) if main is not None and num_runs <= _MAX_RUNS_WITH_LOSS else ()
    trained = [one for one in curves.outputs if one.side != "loss"]
    return tested[:_MAX_OUTPUTS_OF_MANY] or trained[:1]


def _draw_outputs(axes: Mapping[str, Axes], curves: Curves, look: Look) -> None:
    """Draws each output on the axis that it belongs to."""
    single = look.single
    found = shown_outputs(curves, single=single, num_runs=look.num_runs)
    losses = [one for one in found if one.side == "loss" and one.metric.phase == "test"]
    for place, one in enumerate(found):
        line = thinned(one.curve, MAX_POINTS)
        if not len(line.x):
            continue
        drawn: dict[str, Any] = {"linewidth": 1.0, "zorder": 2}
        last = ""
        if one.metric.phase == "test":
            last = _figures(one.curve, one.better, ".4g", one.unit)
            marker = "D" if one.side == "loss" else "o"
            drawn |= {
                "linewidth": 1.2 if single else 0.9,
                "marker": marker if single else look.marker,
                "markersize": 3.5 if len(line.x) <= _MAX_FEW else 2,
                "markevery": max(1, len(line.x) // _MAX_MARKERS),
                "markerfacecolor": "white",
            }
        elif len(line.x) == 1:
            drawn["marker"] = "."
        shade = COLORS[(place + 2) % len(COLORS)] if single else look.color
        if single and [one] == losses[:1]:
            shade = TEST_LOSS_COLOR
        style = ("-", "--", ":", "-.")[(place // 4 if single else place) % 4]
        label = plain(f"{look.prefix}{one.label}", 60) + last
        axes[one.side].plot(line.x, line.y, style, color=shade, label=label, **drawn)
    more = len(curves.outputs) - len(found)
    if single and more:
        axes["error"].plot([], [], " ", label=f"{more:,} more outputs: --html and --csv have them")


def draw_marks(axis: Axes, curves: Curves, prefix: str, color: str, *, single: bool) -> None:
    """Draws restarts and the point of divergence."""
    for number, at in enumerate(curves.restarts):
        axis.axvline(
            at,
            color=RESTART_COLOR if single else color,
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
