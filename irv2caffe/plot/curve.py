"""Curve: points along an axis; functions that cut, average and thin curves."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_RAW_POINTS = 60  # more displays than these are drawn under a moving average
_GAP = 5.0  # times the steps before and after
Window = tuple[float | None, float | None]
Array = Any  # of numpy


def limits(window: Window) -> tuple[float, float]:
    """The limits of a window, widened so that 15:25 includes a test at 14.999 epochs."""
    low = -math.inf if window[0] is None else window[0]
    high = math.inf if window[1] is None else window[1]
    margin = 0.005 * (high - low) if math.isfinite(high - low) else 0.001 * abs(low + high)
    margin = margin if math.isfinite(margin) else 0.0
    return low - margin, high + margin


class Curve(NamedTuple):
    """Points: places on the x axis and values."""

    x: Array
    y: Array

    def cut(self, window: Window) -> Curve:
        """The points inside of a window."""
        low, high = limits(window)
        inside = (self.x >= low) & (self.x <= high)
        return Curve(self.x[inside], self.y[inside])


def best_point(curve: Curve, better: str | None) -> tuple[float, float] | None:
    """Place and value of the first best point of a curve, or None.

    Args:
        curve: of finite values.
        better: ``up`` or ``down`` (higher or lower is better), or None if unknown.
    """
    if better is None or not len(curve.y):
        return None
    found = int(np.argmax(curve.y) if better == "up" else np.argmin(curve.y))
    return float(curve.x[found]), float(curve.y[found])


def span_of(count: int) -> int:
    """The number of displays to average: odd, and 1 if there are few."""
    return 1 if count <= _MAX_RAW_POINTS else max(3, count // 40) // 2 * 2 + 1


def moving_average(values: Array, span: int) -> Array:
    """Each value's mean with its neighbours, fewer of them at the ends.

    Averages are symmetric also at the start, since a loss falls steeply at first.

    Args:
        values: finite numbers.
        span: odd number of values.
    """
    sums = np.concatenate(([0.0], np.cumsum(values)))
    places = np.arange(len(values))
    before = np.minimum(places, span // 2)
    after = np.minimum(before, len(values) - 1 - places)
    return (sums[places + after + 1] - sums[places - before]) / (before + after + 1)


def smoothed(curve: Curve, span: int) -> Curve:
    """The moving average of each part between gaps; no average spans a gap."""
    parts = np.split(curve.y, gaps(curve.x))
    return Curve(curve.x, np.concatenate([moving_average(part, span) for part in parts]))


def thinned(curve: Curve, max_points: int) -> Curve:
    """A curve of fewer points that looks the same: the lowest and highest of each part."""
    count = len(curve.x)
    if count <= max_points:
        return curve
    edges = np.linspace(0, count, max_points // 2 + 1).astype(int)
    kept = {0, count - 1}
    for first, end in pairwise(edges.tolist()):
        part = curve.y[first:end]
        kept |= {first + int(np.argmin(part)), first + int(np.argmax(part))}
    places = np.array(sorted(kept))
    return Curve(curve.x[places], curve.y[places])


def gaps(places: Array) -> Array:
    """Indices of the points after a gap, where displays are missing.

    A gap is a step several times as long as both neighbours, unlike a changed display interval.
    """
    steps = np.diff(places)
    if len(steps) < 2:
        return np.empty(0, int)
    around = np.concatenate(([0.0], steps, [0.0]))
    return 1 + np.flatnonzero(steps > _GAP * np.maximum(around[:-2], around[2:]))


def pooled(curve: Curve, max_points: int) -> tuple[Curve, int]:
    """Means of consecutive points, each at its last point; and the number of points in a mean."""
    count = len(curve.x)
    per = max(1, -(-count // max_points))
    starts = np.arange(0, count, per)
    ends = np.minimum(starts + per, count)
    return Curve(curve.x[ends - 1], np.add.reduceat(curve.y, starts) / (ends - starts)), per


def is_wide(curves: Sequence[Curve]) -> bool:
    """Whether learning rates differ by more than a factor of 5 and need a logarithmic scale."""
    found = [curve.y for curve in curves if len(curve.y)]
    low = min((float(y.min()) for y in found), default=0.0)
    return low > 0 and max(float(y.max()) for y in found) > 5 * low


def between(
    points: list[tuple[float, float]], low: float, high: float
) -> list[tuple[float, float]]:
    """The part of a line between two places, with interpolated ends."""
    found = [point for point in points if low <= point[0] <= high]
    for before, after in pairwise(points):
        for place in (low, high):
            if before[0] < place < after[0]:
                share = (place - before[0]) / (after[0] - before[0])
                found.append((place, before[1] + share * (after[1] - before[1])))
    return sorted(found)
