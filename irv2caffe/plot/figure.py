"""Figure of one or more runs: validation error on the left, losses on the right."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.figure import Figure

from irv2caffe.atomic import atomic_file
from irv2caffe.own_files import MARK
from irv2caffe.plot.curve import is_wide, smoothed, span_of, thinned
from irv2caffe.plot.curves import Run, curves_of
from irv2caffe.plot.lines import (
    MAX_POINTS,
    REFERENCE_SUFFIX,
    draw_marks,
    draw_reference,
    draw_run,
    look_of,
    shown_outputs,
)
from irv2caffe.plot.scales import plain_numbers, set_scales, visible
from irv2caffe.plot.style import (
    COLORS,
    ERROR_COLORS,
    LOSS_COLOR,
    MAX_TITLE,
    PANEL_COLOR,
    REFERENCE_COLORS,
    PlotOptions,
    check_references,
    check_suffix,
    plain,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from irv2caffe.plot.curves import Curves
    from irv2caffe.plot.output_curves import OutputCurve

_LEGEND_ROWS, _ROW_HEIGHT = 3, 0.21  # rows that fit; inches for each further row
_WIDTH, _HEIGHT, _PANEL_HEIGHT = 9.0, 5.5, 1.6
_DEFAULT = PlotOptions()


def draw(runs: Sequence[Run], out: Path, options: PlotOptions = _DEFAULT) -> None:
    """Writes a figure; no display is needed.

    Args:
        runs: drawn into the same axes.
        out: ``.png``, ``.svg`` or ``.pdf``.
        options: panels, scales, references and texts.

    Raises:
        UsageError: another suffix, or references without epochs.
        InputError: there is nothing to draw.
        OutputError: the file cannot be written.
    """
    check_suffix(out)
    # The user's matplotlibrc may require LaTeX or hide lines.
    with rc_context(), atomic_file(out) as temporary, warnings.catch_warnings():
        rcdefaults()
        rcParams["svg.hashsalt"] = "irv2caffe"  # else identifiers are random
        fig = figure(runs, options)
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box is drawn instead
        # No dates in the file: the same log gives the same bytes.
        metadata: dict[str, Any] = {
            ".svg": {"Date": None, "Creator": MARK},
            ".pdf": {"CreationDate": None, "Creator": MARK},
        }.get(out.suffix.lower(), {"Software": MARK})
        fig.savefig(temporary, dpi=150, metadata=metadata)


def figure(runs: Sequence[Run], options: PlotOptions = _DEFAULT) -> Figure:
    """Draws the figure of :func:`draw`.

    Errors of a single run are blue and losses orange, as their axes; of several runs each has a
    color, a marker and a line style of its own.
    """
    shown = curves_of(runs, window=options.window, smooth=options.smooth)
    in_epochs = shown[0].in_epochs
    check_references(options.references, in_epochs=in_epochs)
    single = len(shown) == 1
    outputs = [
        one for curves in shown for one in shown_outputs(curves, single=single, num_runs=len(shown))
    ]
    sides = {one.side for one in outputs}
    # Outputs other than errors and losses are on the left axis, or in a panel if errors are on it.
    has_errors = "error" in sides or any(one.errors or one.other_errors for one in shown)
    panels = ("value",) * (has_errors and "value" in sides) + options.panels
    fig = Figure(figsize=(_WIDTH, _HEIGHT + _PANEL_HEIGHT * len(panels)), layout="constrained")
    axes = fig.subplots(
        1 + len(panels),
        sharex=True,
        squeeze=False,
        height_ratios=[_HEIGHT, *[_PANEL_HEIGHT] * len(panels)],
    )[:, 0]
    main, loss_axis = axes[0], axes[0].twinx()
    scales = {"error": main, "loss": loss_axis, "value": axes[int("value" in panels)]}
    window = visible(shown, options)
    for place, reference in enumerate(options.references):
        draw_reference(main, loss_axis, reference, REFERENCE_COLORS[place % 4], window)
    for place, curves in enumerate(shown):
        draw_run(scales, curves, look_of(place, curves.name, len(shown)))
    for axis, panel in zip(axes[1:], panels, strict=True):
        _draw_panel(axis, panel, shown, outputs)
    loss_axis.set_ylabel("loss" if "loss" in sides else "training loss")
    set_scales(main, loss_axis, shown, options)
    _finish(fig, list(axes), list(dict.fromkeys(scales.values())), shown)
    if has_errors:
        main.set_ylabel("validation error (%)" if _is_validated(shown) else "training error (%)")
    elif "value" in sides:
        main.set_ylabel(_value_label(outputs))
    else:
        main.set_yticks([])
        main.set_ylabel("" if any(one.is_tested for one in shown) else "no test results yet")
    if single:
        _color_axis(main, ERROR_COLORS["top-1"] if shown[0].errors else "")
        _color_axis(loss_axis, LOSS_COLOR if loss_axis.lines else "")
    title = options.title or (shown[0].name if single else "")
    if title:
        main.set_title(plain(title, MAX_TITLE))
    return fig


def _color_axis(axis: Axes, color: str) -> None:
    """Gives an axis the color of its curves."""
    if color:
        axis.yaxis.label.set_color(color)
        axis.tick_params(axis="y", which="both", colors=color)


def _is_validated(shown: Sequence[Curves]) -> bool:
    """Whether any error is from a test."""
    return any(
        one.errors
        or one.other_errors
        or any(output.side == "error" and output.metric.phase == "test" for output in one.outputs)
        for one in shown
    )


def _value_label(outputs: Sequence[OutputCurve]) -> str:
    """The label of the left axis: the name of the output, if there is one only."""
    names = {one.metric.name for one in outputs if one.side == "value"}
    return plain(names.pop()) if len(names) == 1 else "outputs, as printed"


def _draw_panel(
    axis: Axes, panel: str, shown: Sequence[Curves], outputs: Sequence[OutputCurve]
) -> None:
    single = len(shown) == 1
    if panel == "value":  # the lines of the runs are already there
        axis.grid(visible=True, linewidth=0.5, alpha=0.4)
        axis.set_ylabel(_value_label(outputs))
        return
    draw_one = _draw_rate if panel == "lr" else _draw_speed
    for place, curves in enumerate(shown):
        color = COLORS[place % len(COLORS)]
        draw_one(axis, curves, PANEL_COLOR if single else color)
        draw_marks(axis, curves, "", color, single=single)
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
    curve = thinned(curves.lr, MAX_POINTS)
    axis.plot(curve.x, curve.y, color=color, drawstyle="steps-post", linewidth=1.2)


def _draw_speed(axis: Axes, curves: Curves, color: str) -> None:
    """Draws the displayed rate; with many displays, in light colour under the moving average."""
    raw = thinned(curves.rate, MAX_POINTS)
    span = span_of(len(curves.rate.x))
    axis.plot(raw.x, raw.y, color=color, linewidth=0.8, alpha=0.3 if span > 1 else 1.0)
    if span > 1:
        smooth = thinned(smoothed(curves.rate, span), MAX_POINTS)
        axis.plot(smooth.x, smooth.y, color=color, linewidth=1.2)


def _finish(fig: Figure, axes: list[Axes], labelled: list[Axes], shown: Sequence[Curves]) -> None:
    """Sets labels and grid, and puts one legend for the axes ``labelled`` below the figure."""
    main, loss_axis = labelled[:2]
    axes[-1].set_xlabel("epoch" if shown[0].in_epochs else "iteration")
    main.grid(visible=True, linewidth=0.5, alpha=0.4)
    main.set_zorder(loss_axis.get_zorder() + 1)  # markers over the loss
    main.patch.set_visible(False)
    if not loss_axis.lines:
        loss_axis.set_yticks([])
        loss_axis.set_yticks([], minor=True)
        loss_axis.set_ylabel("no training loss")
    entries = [
        entry for axis in labelled for entry in zip(*axis.get_legend_handles_labels(), strict=True)
    ]
    entries.sort(key=lambda entry: entry[1].endswith(REFERENCE_SUFFIX))
    longest = max((len(label) for _, label in entries), default=0)
    columns = 3 if longest <= 36 else 2 if longest <= 56 else 1
    more_rows = max(0, math.ceil(len(entries) / columns) - _LEGEND_ROWS)
    fig.set_figheight(fig.get_figheight() + more_rows * _ROW_HEIGHT)
    fig.legend(
        [handle for handle, _ in entries],
        [label for _, label in entries],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
    )
