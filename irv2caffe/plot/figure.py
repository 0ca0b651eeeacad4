"""The figure: validation error on the left, losses on the right, epochs below."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.figure import Figure

from irv2caffe.atomic import atomic_file
from irv2caffe.plot.colors import COLORS, LOSS_COLOR, LOST_COLOR, REFERENCE_COLORS
from irv2caffe.plot.curve import Curve, between, is_wide, smoothed, span_of, thinned
from irv2caffe.plot.curves import Run, curves_of
from irv2caffe.plot.outputs import draw_outputs, drawn_of
from irv2caffe.plot.scales import plain_numbers, scale, visible
from irv2caffe.plot.style import MAX_TITLE, Look, check_references, check_suffix, plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from irv2caffe.log.reference import Reference
    from irv2caffe.plot.curves import Curves

_MAX_POINTS = 4000
_MAX_FEW = 40  # points that can be told apart
_MAX_MARKERS = 100  # more run into each other
_BEHIND = " (reference)"
_LEGEND_ROWS, _ROW_HEIGHT = 3, 0.21  # that the height leaves room for; inches of one more
_WIDTH, _HEIGHT, _PANEL_HEIGHT = 9.0, 5.5, 1.6


_PLAIN = Look()


def draw(runs: Sequence[Run], out: Path, look: Look = _PLAIN) -> None:
    """Writes a figure; no display is needed.

    Args:
        runs: drawn over each other.
        out: ``.png``, ``.svg`` or ``.pdf``.
        look: what is drawn beside them, and how.

    Raises:
        UsageError: another suffix, or references without epochs.
        InputError: there is nothing to draw.
        OutputError: the file cannot be written.
    """
    check_suffix(out)
    # A matplotlibrc of the user's may ask for LaTeX, which need not be here, or hide the lines.
    with rc_context(), atomic_file(out) as aside, warnings.catch_warnings():
        rcdefaults()
        rcParams["svg.hashsalt"] = "irv2caffe"  # else identifiers are random
        made = figure(runs, look)
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for it
        # No dates in the file: the same log gives the same bytes.
        metadata: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(
            out.suffix.lower(), {"Software": None}
        )
        made.savefig(aside, dpi=150, metadata=metadata)


def figure(runs: Sequence[Run], look: Look = _PLAIN) -> Figure:
    """The figure of :func:`draw`, not yet written.

    The loss of a single run is gray, of several it has its run's colour.
    """
    shown = curves_of(runs, window=look.window, smooth=look.smooth)
    in_epochs = shown[0].in_epochs
    check_references(look.references, in_epochs=in_epochs)
    single = len(shown) == 1
    sides = {one.side for curves in shown for one in drawn_of(curves, single=single)}
    # Outputs that are no errors stand on the left, or in a panel where errors stand there.
    has_errors = "error" in sides or any(one.errors or one.other_errors for one in shown)
    panels = ("value",) * (has_errors and "value" in sides) + look.panels
    made = Figure(figsize=(_WIDTH, _HEIGHT + _PANEL_HEIGHT * len(panels)), layout="constrained")
    axes = made.subplots(
        1 + len(panels),
        sharex=True,
        squeeze=False,
        height_ratios=[_HEIGHT, *[_PANEL_HEIGHT] * len(panels)],
    )[:, 0]
    main, loss_axis = axes[0], axes[0].twinx()
    scales = {"error": main, "loss": loss_axis, "value": axes[int("value" in panels)]}
    window = visible(shown, look)
    for place, reference in enumerate(look.references):
        _draw_reference(main, loss_axis, reference, REFERENCE_COLORS[place % 4], window)
    for place, curves in enumerate(shown):
        _draw_run(scales, curves, COLORS[place % len(COLORS)], single=single)
    for axis, panel in zip(axes[1:], panels, strict=True):
        _draw_panel(axis, panel, shown, single=single)
    loss_axis.set_ylabel("loss" if "loss" in sides else "training loss")
    scale(main, loss_axis, shown, look)
    _finish(made, list(axes), list(dict.fromkeys(scales.values())), shown)
    if has_errors:
        main.set_ylabel("validation error (%)" if _is_validated(shown) else "training error (%)")
    elif "value" in sides:
        main.set_ylabel(_value_label(shown, single=single))
    else:
        main.set_yticks([])
        main.set_ylabel("" if any(one.is_tested for one in shown) else "no test results yet")
    if look.title:
        main.set_title(plain(look.title, MAX_TITLE))
    return made


def _is_validated(shown: Sequence[Curves]) -> bool:
    """Whether any of the errors is one of a test."""
    return any(
        one.errors
        or one.other_errors
        or any(scalar.side == "error" and scalar.metric.phase == "test" for scalar in one.scalars)
        for one in shown
    )


def _value_label(shown: Sequence[Curves], *, single: bool) -> str:
    """The name of the outputs on the left, where it is one."""
    found = [one for curves in shown for one in drawn_of(curves, single=single)]
    names = {one.metric.name for one in found if one.side == "value"}
    return plain(names.pop()) if len(names) == 1 else "outputs, as printed"


def _draw_run(scales: Mapping[str, Axes], curves: Curves, color: str, *, single: bool) -> None:
    main = scales["error"]
    prefix = "" if single else f"{plain(curves.name)}: "
    _draw_loss(scales["loss"], curves, prefix, LOSS_COLOR if single else color, single=single)
    shades = {"top-1": color, "top-5": COLORS[1] if single else color}
    for rank, curve in curves.errors.items():
        _draw_errors(main, curve, rank, shades[rank], f"{prefix}validation {rank} error")
    for (net, rank), curve in curves.other_errors.items() if single else ():
        label = f"test net #{net}: {rank} error"
        _draw_errors(
            main, curve, rank, COLORS[2 + (net + (rank == "top-5")) % 4], label, hollow=True
        )
    draw_outputs(scales, curves, prefix, color, single=single)
    _mark(main, curves, prefix, color, single=single)


def _draw_errors(
    axis: Axes, curve: Curve, rank: str, color: str, label: str, *, hollow: bool = False
) -> None:
    """Validation errors in percent; the last value stands in the legend."""
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
    """The loss as displayed; where that is dense, light, under a stated moving average."""
    label = f"{prefix}training loss"
    raw = thinned(curves.loss, _MAX_POINTS)
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
    smooth = thinned(curves.smooth, _MAX_POINTS)
    label += f" (mean of {curves.span:,} displays)"
    axis.plot(smooth.x, smooth.y, label=label, zorder=2, **line)


def _mark(axis: Axes, curves: Curves, prefix: str, color: str, *, single: bool) -> None:
    """Restarts and the end of a loss that was lost."""
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
        at, color=LOST_COLOR, linewidth=1.4, label=f"{prefix}diverged at {unit} {at:,.4g}", zorder=2
    )
    if single and curves.end > at:
        axis.axvspan(at, curves.end, color=LOST_COLOR, alpha=0.07, linewidth=0, zorder=0)


def _draw_reference(
    main: Axes, loss_axis: Axes, reference: Reference, color: str, visible: tuple[float, float]
) -> None:
    """Thin and behind; one entry in the legend for all lines of a run."""
    label: str | None = f"{reference.name}{_BEHIND}"
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
            if len(placed) < 4:  # few enough that each was worth publishing
                axis.plot(*zip(*placed, strict=True), "x", markersize=4, color=color, zorder=0.5)
            label = None


def _draw_panel(axis: Axes, panel: str, shown: Sequence[Curves], *, single: bool) -> None:
    if panel == "value":  # its lines are those of the runs
        axis.grid(visible=True, linewidth=0.5, alpha=0.4)
        axis.set_ylabel(_value_label(shown, single=single))
        return
    draw_one = _draw_rate if panel == "lr" else _draw_speed
    for place, curves in enumerate(shown):
        color = COLORS[place % len(COLORS)]
        draw_one(axis, curves, LOSS_COLOR if single else color)
        _mark(axis, curves, "", color, single=single)
    axis.grid(visible=True, linewidth=0.5, alpha=0.4)
    found = [curves.lr if panel == "lr" else curves.rate for curves in shown]
    if not any(len(curve.x) for curve in found):
        axis.set_yticks([])
    if panel == "lr":
        axis.set_ylabel("learning rate")
        if is_wide(found):
            axis.set_yscale("log")
            plain_numbers(axis.yaxis)
        return
    unit = "images/s" if all(curves.rate_is_images for curves in shown) else "iterations/s"
    span = span_of(len(shown[0].rate.x))
    axis.set_ylabel(f"{unit}\n(mean of {span:,})" if single and span > 1 else unit)
    axis.set_ylim(bottom=0)


def _draw_rate(axis: Axes, curves: Curves, color: str) -> None:
    curve = thinned(curves.lr, _MAX_POINTS)
    axis.plot(curve.x, curve.y, color=color, drawstyle="steps-post", linewidth=1.2)


def _draw_speed(axis: Axes, curves: Curves, color: str) -> None:
    """As displayed; where that is dense, light, under a moving average."""
    raw = thinned(curves.rate, _MAX_POINTS)
    span = span_of(len(curves.rate.x))
    axis.plot(raw.x, raw.y, color=color, linewidth=0.8, alpha=0.3 if span > 1 else 1.0)
    if span > 1:
        smooth = thinned(smoothed(curves.rate, span), _MAX_POINTS)
        axis.plot(smooth.x, smooth.y, color=color, linewidth=1.2)


def _finish(made: Figure, axes: list[Axes], told: list[Axes], shown: Sequence[Curves]) -> None:
    """Labels, grid, and one legend for the scales ``told``, below where it hides nothing."""
    main, loss_axis = told[:2]
    axes[-1].set_xlabel("epoch" if shown[0].in_epochs else "iteration")
    main.grid(visible=True, linewidth=0.5, alpha=0.4)
    main.set_zorder(loss_axis.get_zorder() + 1)  # markers over the loss
    main.patch.set_visible(False)
    if not loss_axis.lines:
        loss_axis.set_yticks([])
        loss_axis.set_yticks([], minor=True)
        loss_axis.set_ylabel("no training loss")
    entries = [
        entry for axis in told for entry in zip(*axis.get_legend_handles_labels(), strict=True)
    ]
    entries.sort(key=lambda entry: entry[1].endswith(_BEHIND))
    longest = max((len(label) for _, label in entries), default=0)
    columns = 3 if longest <= 36 else 2 if longest <= 56 else 1
    more_rows = max(0, math.ceil(len(entries) / columns) - _LEGEND_ROWS)
    made.set_figheight(made.get_figheight() + more_rows * _ROW_HEIGHT)
    made.legend(
        [handle for handle, _ in entries],
        [label for _, label in entries],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
    )
