"""Curves, marks and legend of the report as JSON values for its script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.errors import InputError
from irv2caffe.plot.curve import Curve, best_point, between, gaps, is_wide, pooled, thinned
from irv2caffe.plot.curves import loss_top
from irv2caffe.plot.style import (
    COLORS,
    DIVERGED_COLOR,
    ERROR_COLORS,
    LOSS_COLOR,
    PANEL_COLOR,
    REFERENCE_COLORS,
    RESTART_COLOR,
    TEST_LOSS_COLOR,
    PlotOptions,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from irv2caffe.log.reference import Reference
    from irv2caffe.plot.curve import Window
    from irv2caffe.plot.curves import Curves

_MAX_POINTS = 3000
_MAX_OUTPUTS = 40  # outputs of a run beside its errors and its loss
_MAX_CLOCK = 500
_MAX_STEPS = 30  # of a learning rate; with more it is taken for continuous
_STEP = 0.99  # ratio of learning rates; smaller changes are not steps
# Of the losses of the runs of a comparison.
_LOSS_DASHES = ("2 3", "7 3", "6 2 1 2", "1 5", "10 2 1 2 1 2", "5 5")


def page_data(shown: Sequence[Curves], options: PlotOptions) -> dict[str, Any]:
    """Curves, marks and legend, for JSON.

    Args:
        shown: the curves of each run.
        options: references, scales, title, and the initial view.

    Raises:
        InputError: the window lies outside of the runs.
    """
    single = len(shown) == 1
    curves: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    end = max(one.end for one in shown)
    for place, reference in enumerate(options.references if shown[0].in_epochs else ()):
        curves += _reference(reference, REFERENCE_COLORS[place % 4], end)
    for curve in curves:
        curve["run"] = -1  # without a time axis
    num_behind = len(curves)
    has_errors = any(
        one.errors or one.other_errors or any(output.side == "error" for output in one.outputs)
        for one in shown
    )
    for place, one in enumerate(shown):
        color = COLORS[place % len(COLORS)]
        prefix = "" if single else f"{one.name}: "
        dash = "" if single else _LOSS_DASHES[place % len(_LOSS_DASHES)]
        curves += _loss(one, prefix, LOSS_COLOR if single else color, dash)
        curves += _errors(one, prefix, color, single=single)
        curves += _outputs(one, prefix, color, single=single, has_errors=has_errors)
        curves += _panels(one, prefix, PANEL_COLOR if single else color)
        marks += _marks(one, prefix, RESTART_COLOR if single else color)
        for entry in (*curves, *marks):
            entry.setdefault("run", place)
    for number, curve in enumerate(curves):
        curve["key"] = number
    return {
        **_axis(shown, options.window),
        "displays": max(len(one.loss.x) for one in shown),
        "span": max(one.span for one in shown),
        "logLoss": "loss" in options.log_axes,
        "lossTop": loss_top(shown),
        "curves": curves,
        "legend": _legend(curves[num_behind:] + curves[:num_behind]),
        "marks": marks,
        "logRates": is_wide([one.lr for one in shown]),
        "labels": _labels(shown, has_errors=has_errors),
        "axisColors": _axis_colors(shown[0]) if single else {},
    }


def _axis(shown: Sequence[Curves], window: Window | None) -> dict[str, Any]:
    """The x axis: epochs or iterations, or hours of training."""
    first, last = min(one.start for one in shown), max([*(one.end for one in shown), 1e-9])
    hours = [float(one.clock.y[-1]) for one in shown if len(one.clock.y)]
    return {
        "unit": "epoch" if shown[0].in_epochs else "iteration",
        "first": first,
        "last": last,
        "view": _view(window, first, last),
        "clocks": [_clock(one) for one in shown],
        "hours": [0.0, max(hours, default=0.0)],
    }


def _labels(shown: Sequence[Curves], *, has_errors: bool) -> dict[str, dict[str, str]]:
    images = all(one.rate_is_images for one in shown)
    has_losses = any(one.side == "loss" for curves in shown for one in curves.outputs)
    errors = "validation error (%)" if any(one.is_tested for one in shown) else "error (%)"
    return {
        "main": {
            "left": errors if has_errors else "outputs, as printed",
            "right": "loss" if has_losses else "training loss",
        },
        "value": {"left": "outputs", "right": ""},
        "lr": {"left": "learning rate", "right": ""},
        "rate": {"left": "images/s" if images else "iterations/s", "right": ""},
    }


def _axis_colors(one: Curves) -> dict[str, str]:
    """The colors of the axes of a single run: those of their curves."""
    left = {"left": ERROR_COLORS["top-1"]} if one.errors else {}
    return {**left, "right": LOSS_COLOR} if len(one.loss.x) else left


def _view(window: Window | None, first: float, last: float) -> list[float] | None:
    if window is None:
        return None
    low, high = window
    view = [first if low is None else max(first, low), last if high is None else min(last, high)]
    if not view[0] < view[1]:
        raise InputError(
            "the run has no data in these epochs", f"--epochs: it goes from {first:g} to {last:g}"
        )
    return view


def _curve(curve: Curve, name: str, color: str, **more: Any) -> dict[str, Any]:
    """A curve as a JSON value, with values rounded to six digits."""
    few = thinned(curve, _MAX_POINTS)
    look: dict[str, Any] = {"panel": "main", "side": "left", "width": 2, "group": name}
    return {**_points(few), "name": name, "color": color, **look, **more}


def _points(curve: Curve) -> dict[str, list[float]]:
    return {
        "x": [float(f"{value:.7g}") for value in curve.x.tolist()],
        "y": [float(f"{value:.6g}") for value in curve.y.tolist()],
    }


def _clock(one: Curves) -> dict[str, list[float]] | None:
    """Hours at up to 500 places, for linear interpolation."""
    count = len(one.clock.x)
    if count < 2 or one.clock.y[-1] <= one.clock.y[0]:
        return None
    kept = np.unique(np.linspace(0, count - 1, min(count, _MAX_CLOCK)).astype(int))
    points = _points(Curve(one.clock.x[kept], one.clock.y[kept]))
    return {"x": points["x"], "hours": points["y"]}


def _displayed(curve: Curve, name: str, color: str, **look: Any) -> dict[str, Any]:
    """A curve of many displays, averaged by the page over an adjustable span."""
    few, per = pooled(curve, _MAX_POINTS)
    mean = {**_points(few), "per": per, "breaks": sorted({*(gaps(curve.x) // per).tolist()})}
    return _curve(curve, name, color, mean=mean, **look)


def _loss(one: Curves, prefix: str, color: str, dash: str) -> Iterable[dict[str, Any]]:
    look = {"side": "right", "dash": dash}
    if len(one.loss.x):
        yield _displayed(one.loss, f"{prefix}training loss", color, **look)


def _errors(one: Curves, prefix: str, color: str, *, single: bool) -> Iterable[dict[str, Any]]:
    look: dict[str, Any] = {"marker": True, "unit": " %"}
    for rank, curve in one.errors.items():
        shade = ERROR_COLORS[rank] if single else color
        more = _last_and_best(curve, "down", " %")
        more |= {"best": _best(curve)} if rank == "top-1" else {"dash": "6 4"}
        yield _curve(curve, f"{prefix}validation {rank} error", shade, **more, **look)
    for (net, rank), curve in one.other_errors.items():
        shade = COLORS[2 + (net + (rank == "top-5")) % 4]
        name = f"{prefix}test net #{net}: {rank} error"
        yield _curve(curve, name, shade, dash="6 4" if rank == "top-5" else "", **look)


def _outputs(
    one: Curves, prefix: str, color: str, *, single: bool, has_errors: bool
) -> Iterable[dict[str, Any]]:
    """Other outputs: errors left, losses right, others left or in a separate panel."""
    losses = [each for each in one.outputs if each.side == "loss" and each.metric.phase == "test"]
    for place, output in enumerate(one.outputs[:_MAX_OUTPUTS]):
        shade = COLORS[(place + 2) % len(COLORS)] if single else color
        shade = TEST_LOSS_COLOR if single and [output] == losses[:1] else shade
        is_test = output.metric.phase == "test"
        look: dict[str, Any] = {"width": 1.5 if is_test else 1, "marker": is_test}
        look["side"] = "right" if output.side == "loss" else "left"
        look["panel"] = "value" if output.side == "value" and has_errors else "main"
        look["dash"] = "" if is_test else "3 2"
        if is_test:
            look |= _last_and_best(output.curve, output.better, output.unit)
        name = f"{prefix}{output.label}"
        yield _curve(output.curve, name, shade, unit=output.unit, **look)


def _best(curve: Curve) -> list[float] | None:
    """Place and value of the lowest error."""
    found = best_point(curve, "down") if len(curve.y) > 1 else None
    return None if found is None else [float(f"{value:.7g}") for value in found]


def _last_and_best(curve: Curve, better: str | None, unit: str) -> dict[str, Any]:
    """The last and the best value, for the legend."""
    best = best_point(curve, better)
    if best is None:
        return {}
    return {"figures": f"last {curve.y[-1]:.4g}, best {best[1]:.4g}{unit}"}


def _panels(one: Curves, prefix: str, color: str) -> Iterable[dict[str, Any]]:
    if len(one.lr.x):
        name = f"{prefix}learning rate"
        yield _curve(one.lr, name, color, panel="lr", steps=True, width=1.5)
    if len(one.rate.x):
        name = f"{prefix}{'images' if one.rate_is_images else 'iterations'} per second"
        yield _displayed(one.rate, name, color, panel="rate", width=1)


def _marks(one: Curves, prefix: str, color: str) -> Iterable[dict[str, Any]]:
    for at in one.restarts:
        yield {"x": at, "color": color, "dash": "2 4", "text": f"{prefix}restart", "kind": "mark"}
    for at, before, after in _rate_steps(one.lr):
        text = f"{prefix}learning rate {before:.4g} to {after:.4g}"
        yield {"x": at, "color": color, "dash": "1 5", "text": text, "kind": "step"}
    if one.diverged is not None:
        text = f"{prefix}the loss has diverged from here on"
        yield {
            "x": one.diverged,
            "to": one.end,
            "color": DIVERGED_COLOR,
            "text": text,
            "kind": "mark",
        }


def _rate_steps(lr: Curve) -> list[tuple[float, float, float]]:
    """Place, rate before and rate after of each step; empty for continuous schedules."""
    ratio = lr.y[1:] / np.where(lr.y[:-1] == 0, np.nan, lr.y[:-1])
    steps = 1 + np.flatnonzero((ratio < _STEP) | (ratio > 1 / _STEP))
    if not 0 < len(steps) <= min(_MAX_STEPS, len(lr.y) // 3):
        return []
    return [(float(lr.x[n]), float(lr.y[n - 1]), float(lr.y[n])) for n in steps.tolist()]


def _reference(reference: Reference, color: str, end: float) -> Iterable[dict[str, Any]]:
    group = f"{reference.name} (reference)"
    for metric, what, side, dash in (
        ("val_top1_error", "top-1 error", "left", ""),
        ("val_top5_error", "top-5 error", "left", "6 4"),
        ("train_loss", "training loss", "right", "2 3"),
    ):
        points = reference.curves.get(metric, ())
        placed = between([(at, value) for at, value in points if at is not None], 0.0, end)
        placed += [(at, value) for epoch, value in points if epoch is None for at in (0.0, end)]
        if placed:
            x, y = zip(*placed, strict=True)
            flat = all(epoch is None for epoch, _ in points)
            look = {"side": side, "dash": dash, "width": 1.2, "group": group, "flat": flat}
            line = {"x": list(x), "y": list(y), "name": f"{reference.name}: {what}"}
            base = {
                "panel": "main",
                "behind": True,
                "color": color,
                "unit": " %" * (side == "left"),
            }
            yield {**line, **base, **look}


def _legend(curves: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for curve in curves:
        if curve["panel"] not in {"main", "value"}:
            continue
        name = curve["group"]
        entry = entries.setdefault(
            name,
            {
                "name": name,
                "color": curve["color"],
                "dash": curve.get("dash"),
                "figures": curve.get("figures"),
                "keys": [],
            },
        )
        entry["keys"].append(curve["key"])
    return list(entries.values())
