"""Draw it: validation error and training loss over epochs; with plot_net alone in matplotlib."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from irv2caffe.atomic import file_aside
from irv2caffe.errors import InputError, UsageError
from irv2caffe.log.table import is_diverged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from irv2caffe.log.table import Table, TestRow, TrainRow

SUFFIXES = (".png", ".svg", ".pdf")
# Paul Tol's bright colours, which stay apart for colour-blind eyes and in print.
_COLORS = ("#4477AA", "#EE6677", "#228833", "#AA3377", "#66CCEE", "#CCBB44")
_LOSS_COLOR = "#666666"
_MAX_RAW_POINTS = 60
_SIZE_INCHES = (9.0, 5.5)

Window = tuple[float | None, float | None]


@dataclass(frozen=True)
class Run:
    """A run to draw: its name in the legend and its rows."""

    name: str
    table: Table


def draw(runs: Sequence[Run], out: Path, *, window: Window | None = None, title: str = "") -> None:
    """Writes a figure.

    Args:
        runs: drawn over each other.
        out: ``.png``, ``.svg`` or ``.pdf``.
        window: first and last epoch (iteration, where epochs are not known) of a close-up.
        title: above the figure.

    Raises:
        UsageError: another suffix.
        InputError: there is nothing to draw.
        OutputError: the file cannot be written.
    """
    check_suffix(out)
    made = figure(runs, window=window, title=title)
    with file_aside(out) as aside:
        # No dates in the file: the same log gives the same bytes.
        metadata: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(
            out.suffix.lower(), {"Software": None}
        )
        made.savefig(aside, dpi=150, metadata=metadata)


def check_suffix(out: Path) -> None:
    """Refuses figures of other kinds."""
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {out}: a figure ends in {', '.join(SUFFIXES)}")


def figure(runs: Sequence[Run], *, window: Window | None = None, title: str = "") -> Figure:
    """The figure of :func:`draw`, not yet written.

    The errors are on the left axis, with markers; the loss is on the right one. The loss of a
    single run is gray, of several it has its run's colour, dotted.
    """
    in_epochs = all(run.table.epoch(1) is not None for run in runs)
    shown = [Run(run.name, _cut(run.table, window, in_epochs=in_epochs)) for run in runs]
    empty = [run.name for run in shown if not (run.table.train or run.table.test)]
    if empty:
        where = "in these epochs" if window else "in the log"
        raise InputError(
            f"{', '.join(empty)}: no training loss and no test {where}",
            "is the log cut short? --epochs A:B may lie outside of the run",
        )
    made = Figure(figsize=_SIZE_INCHES, layout="constrained")
    error_axis = made.subplots()
    loss_axis = error_axis.twinx()
    for number, run in enumerate(shown):
        color = _COLORS[number % len(_COLORS)]
        prefix = f"{run.name}: " if len(shown) > 1 else ""
        _draw_loss(loss_axis, run, prefix, color if len(shown) > 1 else _LOSS_COLOR, in_epochs)
        _draw_errors(error_axis, run, prefix, color, in_epochs, single=len(shown) == 1)
        _mark_restarts(error_axis, run, in_epochs)
    _finish(made, error_axis, loss_axis, in_epochs=in_epochs)
    if window:
        error_axis.set_xlim(window[0], window[1])
    else:  # the whole run from zero, with room for a marker; a close-up has its own scales
        for axis in (error_axis, loss_axis):
            axis.set_ylim(bottom=-0.02 * axis.get_ylim()[1])
    if title:
        error_axis.set_title(title)
    return made


def _cut(table: Table, window: Window | None, *, in_epochs: bool) -> Table:
    """The rows inside the window."""
    if window is None:
        return table
    low = -math.inf if window[0] is None else window[0]
    high = math.inf if window[1] is None else window[1]

    def inside(row: TrainRow | TestRow) -> bool:
        return low <= _x(row, in_epochs) <= high

    return type(table)(
        tuple(row for row in table.train if inside(row)),
        tuple(row for row in table.test if inside(row)),
        table.restarts,
        table.images_per_iteration,
        table.num_train_images,
    )


def _x(row: TrainRow | TestRow, in_epochs: bool) -> float:
    return float(row.epoch if in_epochs and row.epoch is not None else row.iteration)


def _draw_errors(
    axis: Axes, run: Run, prefix: str, color: str, in_epochs: bool, *, single: bool
) -> None:
    """Validation errors in percent; the last value stands in the legend."""
    other = _COLORS[1] if single else color
    for name, field, marker, line, shade in (
        ("top-1", "top1_error", "o", "-", color),
        ("top-5", "top5_error", "s", "--", other),
    ):
        points = [
            (_x(row, in_epochs), error)
            for row in run.table.test
            if (error := getattr(row, field)) is not None
        ]
        if not points:
            continue
        x, errors = zip(*points, strict=True)
        axis.plot(
            x,
            errors,
            linestyle=line,
            marker=marker,
            markersize=4 if len(x) <= 40 else 2,
            color=shade,
            label=f"{prefix}validation {name} error ({errors[-1]:.1f} %)",
            zorder=3,
        )


def _draw_loss(axis: Axes, run: Run, prefix: str, color: str, in_epochs: bool) -> None:
    """The loss as displayed; where that is dense, light, under a stated moving average."""
    healthy = [row for row in run.table.train if not is_diverged(row.loss)]
    x = [_x(row, in_epochs) for row in healthy]
    losses = [row.loss for row in healthy]
    label = f"{prefix}training loss"
    if len(losses) > _MAX_RAW_POINTS:
        span = max(3, len(losses) // 40)
        axis.plot(x, losses, color=color, linewidth=0.7, alpha=0.35, zorder=1)
        losses = _moving_average(losses, span)
        label += f" (mean of {span} displays)"
    if losses:
        axis.plot(x, losses, color=color, linewidth=1.3, linestyle=":", label=label, zorder=2)
    lost = next((row for row in run.table.train if is_diverged(row.loss)), None)
    if lost is not None:
        at = _x(lost, in_epochs)
        axis.axvline(at, color="#BB0000", linewidth=1.2, label=f"{prefix}diverged at {at:g}")


def _moving_average(values: Sequence[float], span: int) -> list[float]:
    """Each value's mean with its neighbours, fewer of them at the ends."""
    half = span // 2
    means = []
    for place in range(len(values)):
        near = values[max(0, place - half) : place + half + 1]
        means.append(sum(near) / len(near))
    return means


def _mark_restarts(axis: Axes, run: Run, in_epochs: bool) -> None:
    for number, iteration in enumerate(run.table.restarts):
        at = run.table.epoch(iteration) if in_epochs else None
        axis.axvline(
            iteration if at is None else at,
            color="#999999",
            linewidth=0.8,
            linestyle=(0, (1, 3)),
            label="restart" if number == 0 else None,
        )


def _finish(made: Figure, error_axis: Axes, loss_axis: Axes, *, in_epochs: bool) -> None:
    """Labels, scales and one legend for both axes, below the figure where it hides nothing."""
    error_axis.set_xlabel("epoch" if in_epochs else "iteration")
    error_axis.set_ylabel("validation error (%)")
    loss_axis.set_ylabel("training loss")
    error_axis.grid(visible=True, linewidth=0.5, alpha=0.4)
    error_axis.set_zorder(loss_axis.get_zorder() + 1)  # markers over the loss
    error_axis.patch.set_visible(False)
    if not error_axis.lines or not any(line.get_marker() != "None" for line in error_axis.lines):
        error_axis.set_yticks([])
        error_axis.set_ylabel("no test results yet")
    handles, labels = error_axis.get_legend_handles_labels()
    more_handles, more_labels = loss_axis.get_legend_handles_labels()
    longest = max(map(len, labels + more_labels), default=0)
    made.legend(
        handles + more_handles,
        labels + more_labels,
        loc="outside lower center",
        ncols=3 if longest <= 36 else 2 if longest <= 56 else 1,
        frameon=False,
    )
