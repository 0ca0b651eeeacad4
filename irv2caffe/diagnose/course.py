"""Course: the training loss of a run in parts of equal length, and how it stands still."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from irv2caffe.log.loss_rules import collapsed_loss, guessing_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.log.anomalies import Anomaly

    Numbers = NDArray[np.float64]

_PARTS = 20
_NUM_FIRST = 5  # displays that give the initial loss
_MIN_DISPLAYS = 20  # fewer show no trend
_FLAT = 0.03  # relative change from one half of a time to the other; a plateau has less
_NEAR_GUESS = 0.15
_STANDSTILL = {
    "plateau": "the validation error stands still",
    "stuck": "the training loss has not fallen",
    "chance": "the training loss is that of guessing",
}
_HIGH = 0.25  # of the loss of a net that has learned nothing


@dataclass(frozen=True)
class Course:
    """The training loss up to where the run diverged, if it did.

    Attributes:
        iterations: the middle of each part, ascending.
        losses: the median of the displays in each part.
        initial: the first display, in most runs that of the initial weights.
        first: the median of the first displays.
        guess: the loss of guessing at random, or None where it is not known.
        num_displays: of the loss.
    """

    iterations: tuple[float, ...]
    losses: tuple[float, ...]
    initial: float
    first: float
    guess: float | None
    num_displays: int

    @property
    def level(self) -> float:
        """The loss of a net that has learned nothing: that of guessing, or the initial one."""
        return self.guess or self.first

    @property
    def last(self) -> float:
        """The loss at the end."""
        return self.mean(0.9, 1.0)

    def share(self, iteration: float) -> float:
        """The share of the run done at an iteration, 0 to 1."""
        span = self.iterations[-1] - self.iterations[0]
        return min(1.0, max(0.0, (iteration - self.iterations[0]) / span)) if span else 1.0

    def mean(self, start: float, end: float) -> float:
        """The mean loss between two shares of the run."""
        shares = [self.share(at) for at in self.iterations]
        pairs = zip(shares, self.losses, strict=True)
        inside = [loss for share, loss in pairs if start <= share <= end]
        if inside:
            return math.fsum(inside) / len(inside)
        return float(np.interp((start + end) / 2, shares, self.losses))

    def fall(self, start: float, end: float = 1.0) -> float:
        """How much lower the second half of a time is than its first half; 0.1 is a tenth."""
        middle = (start + end) / 2
        before = self.mean(start, middle)
        return 1 - self.mean(middle, end) / before if before > 0 else 0.0

    def is_flat(self, start: float) -> bool:
        """Whether the loss has hardly changed since a share of the run."""
        return self.num_displays >= _MIN_DISPLAYS and abs(self.fall(start)) < _FLAT

    @property
    def sinks(self) -> bool:
        """Whether the loss falls from nearly every part of the run to the next, however little."""
        falling = sum(one > other for one, other in pairwise(self.losses))
        return falling > 0.8 * (len(self.losses) - 1)

    @property
    def falls_steadily(self) -> bool:
        """Whether the loss is still high, and falls nearly as fast as in the middle of the run."""
        if self.num_displays < _MIN_DISPLAYS or self.last < 0.5 * self.level:
            return False
        parts = [self.mean(place / 3, (place + 1) / 3) for place in range(3)]
        before, now = parts[0] - parts[1], parts[1] - parts[2]
        late = self.losses[len(self.losses) // 2 :]
        falling = sum(one > other for one, other in pairwise(late))
        return (
            now > 0.6 * before
            and now > 0.01 * self.level
            and falling >= 0.6 * max(1, len(late) - 1)
        )


def course_of(evidence: RunEvidence) -> Course | None:
    """The course of the loss; None with fewer than five displays that are numbers."""
    run = evidence.run
    iterations = np.asarray(run.iterations, dtype=np.float64)
    losses = np.asarray(run.losses, dtype=np.float64)
    diverged = evidence.summary.diverged
    usable = np.isfinite(losses) & (np.abs(losses) < 1e30)
    if diverged is not None:
        usable &= iterations < diverged
    iterations, losses = iterations[usable], losses[usable]
    if losses.size < _NUM_FIRST:
        return None
    first = float(np.median(losses[:_NUM_FIRST]))
    guess, size = _guess(evidence, first), int(losses.size)
    middles, medians = _parts(iterations, losses) if size > 2 * _PARTS else (iterations, losses)
    return Course(
        tuple(middles.tolist()), tuple(medians.tolist()), float(losses[0]), first, guess, size
    )


def _parts(iterations: Numbers, losses: Numbers) -> tuple[Numbers, Numbers]:
    """The middles of parts of equal length, and the median of the losses in each."""
    edges = np.linspace(iterations[0], iterations[-1], _PARTS + 1)
    starts = np.searchsorted(iterations, edges[1:-1])
    pairs = zip(np.split(iterations, starts), np.split(losses, starts), strict=True)
    parts = [(np.mean(some), np.median(loss)) for some, loss in pairs if some.size]
    middles, medians = zip(*parts, strict=True)
    return np.asarray(middles), np.asarray(medians)


def _guess(evidence: RunEvidence, first: float) -> float | None:
    """The loss of guessing, where the outputs of the last layer are classes."""
    guess = guessing_loss(evidence.run)
    if not guess:
        return None
    has_accuracy = any(metric.is_fraction for metric in evidence.run.metrics)
    has_accuracy = has_accuracy or bool(evidence.tests)
    return guess if has_accuracy or abs(first - guess) < _NEAR_GUESS * guess else None


def told(evidence: RunEvidence, anomaly: Anomaly) -> str:
    """An anomaly of the log, and where it begins, as a sentence."""
    text = anomaly.text[:1].upper() + anomaly.text[1:]
    return f"{text} (from {evidence.at(anomaly.iteration)} on)."


def standstill(evidence: RunEvidence) -> str:
    """How a run stands still or learns slowly; empty if it does not, or ended in divergence."""
    course = course_of(evidence)
    if course is None or evidence.summary.diverged is not None:
        return ""
    for kind, text in _STANDSTILL.items():
        for one in evidence.summary.anomalies:
            if one.kind == kind:
                return f"{text} since {evidence.at(one.iteration)}"
    if course.is_flat(0.5) and course.last > _HIGH * course.level:
        return f"the training loss is flat at {course.last:.3g} in the second half of the run"
    if course.falls_steadily and evidence.log is not None and evidence.log.finished:
        return f"the training loss is still {course.last:.3g}, and falls slowly"
    return ""


def fell_back(evidence: RunEvidence) -> int | None:
    """The iteration at which a loss that had fallen was back at its initial value for good."""
    if "collapse" not in evidence.anomalies:  # of the loss or of an output of the tests
        return None
    return next((iteration for _, iteration, _ in collapsed_loss(evidence.run)), None)


def is_finetuned(evidence: RunEvidence) -> bool:
    """Whether the run started from the weights of another one, or in the middle of one."""
    log, iterations = evidence.log, evidence.run.iterations
    if log is None:
        return False
    begins_late = len(iterations) > 0 and iterations[0] > 0.1 * evidence.num_iterations
    return bool(log.weights) or bool(evidence.config.get("weights")) or begins_late
