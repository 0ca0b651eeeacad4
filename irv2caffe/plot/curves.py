"""Curves: the rows of a run as numpy arrays along an axis of epochs or iterations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.errors import InputError
from irv2caffe.log.loss_rules import first_diverged
from irv2caffe.log.metrics import RunData
from irv2caffe.log.table import MAX_LOSS, PINNED_LOSS, Table, TestRow, TrainRows, column
from irv2caffe.plot.curve import Curve, Window, limits, smoothed, span_of
from irv2caffe.plot.output_curves import OutputCurve, output_curves

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from irv2caffe.log.read.history import Log

Array = Any  # of numpy


@dataclass(frozen=True)
class Run:
    """A run to draw: its name in the legend, its rows, and its log for the report."""

    name: str
    table: Table
    log: Log | None = None


_NUM_FIRST = 5  # displays that give the initial loss
_EXPLODED = 5.0  # times the initial loss
_START, _UNKNOWN_CHANCE = 1.5, 8.3  # times the loss of guessing; that of 1000 classes and a bit
_LEAP = 2.0  # times the later losses; the first displays of a loss that explodes at once are higher
_FIRST_SHARE, _MIN_VALUES = 20, 6  # the first of so many parts of at least so many values
_MAX_RESTARTS = 100  # about as many marks as can be distinguished
_EMPTY = Curve(np.empty(0), np.empty(0))


@dataclass(frozen=True)
class Curves:
    """The curves of a run.

    Attributes:
        name: of the run.
        in_epochs: whether places are epochs; else they are iterations.
        loss: displays whose loss is finite and not pinned.
        smooth: its moving average, or empty where there are few displays.
        span: how many displays are averaged.
        lr: learning rate.
        rate: images per second, or iterations where the batch is not known.
        rate_is_images: whether the rate is in images.
        errors: validation errors in percent, by ``top-1`` and ``top-5``.
        other_errors: of the other test nets, by net and rank.
        outputs: every other output of the nets.
        is_tested: whether there are any tests.
        clock: hours of training at the places of displays; empty where the log has no times.
        restarts: places of restarts.
        chance: the loss of a net that guesses, or None where the classes are not known.
        diverged: the first place where the loss has diverged, or None.
        start: 0, or the first place of a log that begins in the second half of the run.
        end: the last place.
    """

    name: str
    in_epochs: bool
    loss: Curve = _EMPTY
    smooth: Curve = _EMPTY
    span: int = 1
    lr: Curve = _EMPTY
    rate: Curve = _EMPTY
    rate_is_images: bool = False
    errors: dict[str, Curve] = field(default_factory=dict)
    other_errors: dict[tuple[int, str], Curve] = field(default_factory=dict)
    outputs: tuple[OutputCurve, ...] = ()
    is_tested: bool = False
    clock: Curve = _EMPTY
    restarts: tuple[float, ...] = ()
    chance: float | None = None
    diverged: float | None = None
    start: float = 0.0
    end: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        curves = [self.loss, *self.errors.values(), *self.other_errors.values()]
        curves += [output.curve for output in self.outputs]
        return self.diverged is None and not any(len(curve.x) for curve in curves)

    def cut(self, window: Window) -> Curves:
        """The part inside of a window."""
        low, high = limits(window)
        diverged = self.diverged
        return replace(
            self,
            loss=self.loss.cut(window),
            smooth=self.smooth.cut(window),
            lr=self.lr.cut(window),
            rate=self.rate.cut(window),
            errors={key: curve.cut(window) for key, curve in self.errors.items()},
            other_errors={key: curve.cut(window) for key, curve in self.other_errors.items()},
            outputs=tuple(output.cut(window) for output in self.outputs),
            restarts=tuple(at for at in self.restarts if low <= at <= high),
            diverged=diverged if diverged is not None and low <= diverged <= high else None,
        )


def curves_of(
    runs: Sequence[Run], *, window: Window | None = None, smooth: int | None = None
) -> list[Curves]:
    """The curves of runs on one axis: epochs if all of them know theirs, else iterations.

    Args:
        runs: to draw together.
        window: first and last place; applied after smoothing.
        smooth: displays to average; None: chosen by their number; 1: no averaging.

    Raises:
        InputError: a run has nothing to draw.
    """
    in_epochs = all(run.table.epoch(1) is not None for run in runs)
    found = [_curves(run, in_epochs=in_epochs, smooth=smooth) for run in runs]
    if window is not None:
        found = [curves.cut(window) for curves in found]
    empty = [curves.name for curves in found if curves.is_empty]
    if empty:
        where = f"in these {'epochs' if in_epochs else 'iterations'}" if window else "in the log"
        raise InputError(
            f"{', '.join(empty)}: no training loss and no test {where}",
            "is the log cut short? --epochs A:B may lie outside of the run",
        )
    return found


def loss_top(shown: Sequence[Curves]) -> float | None:
    """The upper limit of the loss axis if an exploding loss would flatten the rest, else None.

    A loss is cut off above several times its initial value; the first displays, where they
    explode, above twice the later ones.
    """
    top = highest = 0.0
    for curves in shown:
        losses = [one.curve.y for one in curves.outputs if one.side == "loss"]
        for values in (curves.loss.y, *losses):
            if not len(values):
                continue
            found = _top(values, curves.chance)
            if found is None:
                return None
            top, highest = max(top, found), max(highest, float(values.max()))
    return top if highest > top else None


def _top(values: Array, chance: float | None) -> float | None:
    """The highest of the losses that did not explode, and a margin; None without losses above 0."""
    start = min(values[:_NUM_FIRST].max(), _START * chance if chance else _UNKNOWN_CHANCE)
    usual = max(start, np.median(values))
    if usual <= 0:
        return None
    is_usual = values <= _EXPLODED * usual
    first = max(1, len(values) // _FIRST_SHARE)
    later = values[first:][is_usual[first:]]
    if len(values) >= _MIN_VALUES and len(later):
        is_usual[:first] &= values[:first] <= _LEAP * max(start, later.max())
    return 1.05 * float(values[is_usual].max(initial=0.0))


def _chance(table: Table, data: RunData) -> float | None:
    """The training loss of a net that guesses: log(classes) times the weights of its heads."""
    if not table.num_classes or table.num_classes < 2:
        return None
    heads = [one for one in data.metrics if (one.phase, one.kind) == ("train", "loss")]
    weights = [1.0 if one.weight is None else one.weight for one in heads] or [1.0]
    return math.log(table.num_classes) * math.fsum(weights)


def _curves(run: Run, *, in_epochs: bool, smooth: int | None) -> Curves:
    table = run.table
    place = _places(table) if in_epochs else partial(np.asarray, dtype=float)
    iteration, loss, lr, step_s = _columns(table)
    x = place(iteration)
    healthy = (np.abs(loss) <= MAX_LOSS) & (np.abs(loss - PINNED_LOSS) >= 1e-3)
    data = RunData(table)
    diverged = first_diverged(data)
    raw = Curve(x[healthy], loss[healthy])
    span = span_of(len(raw.x)) if smooth is None else max(1, min(smooth, len(raw.x))) // 2 * 2 + 1
    with_lr, with_rate = np.abs(lr) <= MAX_LOSS, step_s > 0
    images = _images(table, iteration)
    rate = Curve(x[with_rate], (images[with_rate] if images is not None else 1) / step_s[with_rate])
    other_errors = {
        (net, rank): curve
        for net in sorted({row.net for row in table.other_tests})
        for rank, curve in _error_curves(table.other_tests, net, place).items()
    }
    restarts = table.restarts[:: len(table.restarts) // _MAX_RESTARTS + 1]
    tested = np.array([row.iteration for row in table.test], float)
    ends = place(np.concatenate((tested[-1:], iteration[-1:])))
    first = float(place(np.concatenate((tested[:1], iteration[:1]))).min(initial=np.inf))
    end = float(ends.max(initial=0.0))
    return Curves(
        name=run.name,
        in_epochs=in_epochs,
        loss=raw,
        smooth=smoothed(raw, span) if span > 1 else _EMPTY,
        span=span,
        lr=Curve(x[with_lr], lr[with_lr]),
        rate=rate,
        rate_is_images=images is not None,
        errors=_error_curves(table.test, None, place),
        other_errors=other_errors,
        outputs=tuple(output_curves(data.metrics, place)),
        is_tested=bool(len(table.test) or len(table.other_tests)),
        clock=_clock(table, x),
        restarts=tuple(place(np.array(restarts, float)).tolist()),
        chance=_chance(table, data),
        diverged=None if diverged is None else float(place(np.array(diverged))),
        start=first if end / 2 < first < end else 0.0,
        end=end,
    )


def _places(table: Table) -> Callable[[Array], Array]:
    """The table's epochs as a function of arrays; linear between the starts of processes."""
    starts = sorted({0, *(start for start, _ in table.pieces)})
    last = starts[-1]
    epochs = [table.epoch(start) or 0.0 for start in starts]
    slope = (table.epoch(last + 1) or 0.0) - epochs[-1]

    def place(iteration: Array) -> Array:
        iteration = np.asarray(iteration, float)
        beyond = epochs[-1] + (iteration - last) * slope
        return np.where(iteration >= last, beyond, np.interp(iteration, starts, epochs))

    return place


def _columns(table: Table) -> tuple[Array, Array, Array, Array]:
    """Iteration, loss, learning rate (nan: none), seconds per iteration (0: not known)."""
    rows = table.train
    loss, lr = np.array(column(rows, "loss"), float), np.array(column(rows, "lr"), float)
    if not isinstance(rows, TrainRows):
        per_iteration = table.images_per_iteration or 1
        rates = [row.images_per_second for row in rows]
        step_s = np.array([per_iteration / rate if rate else 0.0 for rate in rates], float)
        return np.array(column(rows, "iteration"), float), loss, lr, step_s
    columns = rows.columns
    iteration = np.array(columns.iteration, np.int64)
    steps = np.diff(iteration, prepend=iteration[:1])
    step_us = np.array(columns.step_us, float)
    good = (steps > 0) & (step_us > 0)
    step_s = np.where(good, step_us / 1e6 / np.maximum(steps, 1), 0.0)
    return iteration, loss, lr, step_s


def _clock(table: Table, x: Array) -> Curve:
    """Hours of training at the displays."""
    if not isinstance(table.train, TrainRows):
        return _EMPTY
    time_us = np.array(table.train.columns.time_us, float)
    known = time_us >= 0
    return Curve(x[known], np.maximum.accumulate(time_us[known] / 3.6e9))


def _images(table: Table, iteration: Array) -> Array | None:
    """Images per iteration, at iterations."""
    if table.images_per_iteration is None:
        return None
    processes = table.pieces or ((0, table.images_per_iteration),)
    starts = np.array([start for start, _ in processes])
    images = np.array([images for _, images in processes], float)
    return images[np.maximum(np.searchsorted(starts, iteration - 1, side="right") - 1, 0)]


def _error_curves(
    rows: Sequence[TestRow], net: int | None, place: Callable[[Array], Array]
) -> dict[str, Curve]:
    """Errors by rank, of one test net or all."""
    found = {}
    for rank, name in (("top-1", "top1_error"), ("top-5", "top5_error")):
        points = [
            (row.iteration, error)
            for row in rows
            if (error := getattr(row, name)) is not None and math.isfinite(error)
            if net is None or row.net == net
        ]
        if points:
            iteration, errors = np.array(points, float).T
            found[rank] = Curve(place(iteration), errors)
    return found
