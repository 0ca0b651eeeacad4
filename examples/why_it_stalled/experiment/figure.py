"""The figure: the curves of the original, what its evaluation shows, and the effect of factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.figure import Figure

from experiment.summary import CLEAN, difference, known_arms, of_arm, spread, value_of
from irv2caffe.atomic import atomic_file
from irv2caffe.plot.style import COLORS, ERROR_COLORS, LOSS_COLOR

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from experiment.summary import Line

_STATISTICS = ("batch 2", "batch 10", "batch 50", "running", "reestimated")
_NAMES = ("own,\nbatch 2", "own,\nbatch 10", "own,\nbatch 50", "running", "estimated\nanew")


def draw(lines: Sequence[Line], engine: str, out: Path) -> None:
    """Writes the figure of the runs of one engine, as .svg, .png or .pdf."""
    good = [line for line in lines if line["engine"] == engine and "error" not in line]
    with rc_context(), atomic_file(out) as aside:
        rcdefaults()
        rcParams["svg.hashsalt"] = "irv2caffe"
        rcParams["font.size"] = 9
        num_effects = len({line["arm"] for line in good} & set(_effects()))
        fig = Figure(figsize=(13.0, max(3.8, 1.4 + 0.17 * num_effects)), layout="constrained")
        curves, statistics, effects = fig.subplots(1, 3, width_ratios=[1.0, 1.1, 1.3])
        _draw_curves(curves, of_arm(good, "original", engine))
        _draw_statistics(statistics, good, engine)
        _draw_effects(effects, good, engine)
        suffix = out.suffix.lower()
        metadata: dict[str, Any] = {"Date": None} if suffix == ".svg" else {}
        fig.savefig(aside, dpi=150, format=suffix[1:], metadata=metadata)


def _draw_curves(axes: Axes, lines: Sequence[Line]) -> None:
    """Training loss and validation errors of one arm, over the epochs."""
    axes.set_title("The original net")
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation error, %", color=ERROR_COLORS["top-1"])
    right = axes.twinx()
    right.set_ylabel("training loss", color=LOSS_COLOR)
    for line in lines:
        losses = [np.nan if value is None else value for value in line["losses"]]
        right.plot(range(1, len(losses) + 1), losses, color=LOSS_COLOR, alpha=0.8, linewidth=1)
        for name, style in (("running", "-"), ("batch 50", "--")):
            points = {1: line["first"], **{int(k): v for k, v in line["curve"].items()}}
            points[len(losses)] = line["final"]
            at = sorted(points)
            values = [points[epoch][name]["error"] for epoch in at]
            label = f"statistics: {name}" if line is lines[0] else None
            axes.plot(at, values, style, color=ERROR_COLORS["top-1"], linewidth=1.2, label=label)
    axes.set_ylim(0, 100)
    right.set_ylim(bottom=0)
    axes.legend(loc="upper right", fontsize=8)


def _draw_statistics(axes: Axes, lines: Sequence[Line], engine: str) -> None:
    """The final error under each kind of statistics, of a few arms."""
    axes.set_title("The same weights, other TEST statistics")
    axes.set_ylabel("validation error, %")
    shown = ("original", "original + scale 0.1", "original + ReLU", *_repaired(lines))
    for color, name in zip(COLORS, shown, strict=False):
        mine = of_arm(lines, name, engine)
        spreads = [spread(mine, ("final", each, "error")) for each in _STATISTICS]
        if not mine:
            continue
        means = [each.mean for each in spreads]
        axes.plot(range(len(means)), means, "o-", color=color, label=name, linewidth=1.2)
        for place, each in enumerate(spreads):
            axes.plot([place] * len(each.values), each.values, ".", color=color, markersize=3)
    axes.set_xticks(range(len(_NAMES)), _NAMES)
    axes.set_ylim(0, 100)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="lower left", fontsize=8)


def _repaired(lines: Sequence[Line]) -> tuple[str, ...]:
    names = {line["arm"] for line in lines}
    return tuple(name for name in ("repaired", "repaired, fixed order") if name in names)


def _effects() -> list[str]:
    return [name for name, arm in known_arms().items() if name != arm.base]


def _draw_effects(axes: Axes, lines: Sequence[Line], engine: str) -> None:
    """The change of the error by each factor, seed by seed."""
    axes.set_title("One change at a time")
    axes.set_xlabel("points of error, statistics estimated anew; left is better")
    names: list[str] = []
    for name in _effects():
        arm = known_arms()[name]
        change = difference(of_arm(lines, name, engine), of_arm(lines, arm.base, engine), CLEAN)
        if not change.values:
            continue
        place = -len(names)
        names.append(name)
        color = COLORS[0] if arm.base.startswith("original") else COLORS[2]
        axes.plot(change.values, [place] * len(change.values), ".", color=color, alpha=0.6)
        axes.plot([change.mean], [place], "|", color=color, markersize=10, markeredgewidth=2)
    axes.axvline(0, color="#777777", linewidth=0.8)
    axes.set_yticks([-place for place in range(len(names))], names, fontsize=7.5)
    axes.grid(axis="x", alpha=0.3)
    noise = _noise(lines, engine)
    if noise is not None:
        axes.axvspan(-noise, noise, color="#999999", alpha=0.15, linewidth=0)


def _noise(lines: Sequence[Line], engine: str) -> float | None:
    """The largest difference between two seeds of the original."""
    values = [value_of(line, CLEAN) for line in of_arm(lines, "original", engine)]
    known = [value for value in values if value is not None]
    return max(known) - min(known) if len(known) > 1 else None
