"""Mixing: whether the training loss differs from batch to batch by more than chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from irv2caffe.diagnose.gaps import is_classification

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from irv2caffe.diagnose.evidence import RunEvidence

_MIN_DISPLAYS = 30
_WARM_UP = 0.1  # of the run, whose loss falls fast
# The loss of single images has a standard deviation of about 1.5 times the root of its mean: 0.8
# at 0.3, 2.6 at 3.
_SPREAD = 1.5
_WIDE = 3.0  # times the spread of random batches
_LEAST_SHARE = 0.1  # of the mean loss
_VERY_WIDE, _VERY_WIDE_SHARE = 5.0, 0.3
_MIN_PHASES, _MAX_PHASES = 8, 100  # places in an epoch that are compared between epochs
_MIN_EPOCHS = 3
_REPEATED = 0.4  # mean correlation of an epoch with the next one
_SLOW = 4.0  # times the variance of means of eight displays, against independent ones
_GROUP = 8


@dataclass(frozen=True)
class Mixing:
    """How the training loss varies around its trend.

    Attributes:
        spread: standard deviation of the displays.
        expected: what it would be, about, for batches of images in random order.
        mean: of the loss.
        images: that a display is the mean of.
        repeats: mean correlation of the course in one epoch with that in the next; None where
            epochs are not known or too few.
        num_epochs: that were compared.
        slowness: variance of means of eight displays over that for independent displays.
    """

    spread: float
    expected: float
    mean: float
    images: int
    repeats: float | None
    num_epochs: int
    slowness: float

    @property
    def is_wide(self) -> bool:
        """Whether the loss varies far more than that of random batches."""
        return self.spread > max(_WIDE * self.expected, _LEAST_SHARE * self.mean)

    @property
    def is_very_wide(self) -> bool:
        """Whether that alone cannot be chance."""
        return self.spread > max(_VERY_WIDE * self.expected, _VERY_WIDE_SHARE * self.mean)

    @property
    def is_periodic(self) -> bool:
        """Whether the same places of an epoch are easy and hard again in the next one."""
        return self.repeats is not None and self.repeats > _REPEATED

    @property
    def is_slow(self) -> bool:
        """Whether easy and hard stretches last longer than a display."""
        return self.slowness > _SLOW


def mixing_of(evidence: RunEvidence) -> Mixing | None:
    """How the loss varies; None for a net that does not classify, or with too few displays."""
    images = _images_of_display(evidence)
    if images is None or not is_classification(evidence):
        return None
    iterations = np.asarray(evidence.run.iterations, dtype=np.float64)
    losses = np.asarray(evidence.run.losses, dtype=np.float64)
    is_used = np.isfinite(losses) & (iterations >= _WARM_UP * evidence.num_iterations)
    iterations, losses = iterations[is_used], losses[is_used]
    if losses.size < _MIN_DISPLAYS or not 0 < float(losses.mean()) < 20:
        return None
    step = float(np.median(np.diff(iterations)))
    epoch = _iterations_per_epoch(evidence)
    course = None if epoch is None else _by_epoch(iterations, losses, epoch, step)
    rest = _without_trend(losses) if course is None else course.ravel()
    mean = float(losses.mean())
    return Mixing(
        spread=float(rest.std()),
        expected=_SPREAD * math.sqrt(mean / images),
        mean=mean,
        images=images,
        repeats=None if course is None else _repeats(course),
        num_epochs=0 if course is None else len(course),
        slowness=_slowness(rest) / max(1.0, _smoothed(evidence) / step),
    )


def _smoothed(evidence: RunEvidence) -> int:
    """Iterations that a displayed loss is the mean of."""
    average = evidence.solver_value("average_loss")
    return average if isinstance(average, int) and average > 0 else 1


def _images_of_display(evidence: RunEvidence) -> int | None:
    """Images that a displayed loss is the mean of: those of one device, over average_loss."""
    if not evidence.effective_batch:
        return None
    gpus = evidence.log.num_gpus if evidence.log is not None else 1
    return max(1, evidence.effective_batch // gpus) * _smoothed(evidence)


def _iterations_per_epoch(evidence: RunEvidence) -> float | None:
    images, batch = evidence.run.table.num_train_images, evidence.effective_batch
    return images / batch if images and batch else None


def _by_epoch(
    iterations: NDArray[np.float64], losses: NDArray[np.float64], epoch: float, step: float
) -> NDArray[np.float64] | None:
    """The loss of each whole epoch without its own trend, epochs x places.

    The trend within an epoch is a parabola: the steps and ramps of a net that memorizes are gone
    with it, and the easy and hard stretches of a badly mixed database are not.
    """
    places = min(_MAX_PHASES, int(epoch / step))
    first, end = math.ceil(iterations[0] / epoch), math.floor(iterations[-1] / epoch)
    if places < _MIN_PHASES or end - first < _MIN_EPOCHS:
        return None
    phases = (np.arange(places) + 0.5) / places
    grid = (np.arange(first, end)[:, None] + phases) * epoch
    course = np.interp(grid.ravel(), iterations, losses).reshape(grid.shape)
    fit = np.polynomial.polynomial.polyfit(phases, course.T, 2)
    result: NDArray[np.float64] = course - np.polynomial.polynomial.polyval(phases, fit)
    return result


def _repeats(course: NDArray[np.float64]) -> float:
    """The mean correlation of an epoch with the next one."""
    norms = np.linalg.norm(course, axis=1)
    products = (course[1:] * course[:-1]).sum(axis=1)
    return float(np.mean(products / np.maximum(norms[1:] * norms[:-1], 1e-12)))


def _without_trend(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """The losses without their moving mean over a tenth of the run."""
    width = max(2 * _GROUP, losses.size // 10) | 1
    sums = np.cumsum(np.concatenate(([0.0], losses)))
    means = (sums[width:] - sums[:-width]) / width
    rest: NDArray[np.float64] = losses[width // 2 : width // 2 + means.size] - means
    return rest


def _slowness(rest: NDArray[np.float64]) -> float:
    """The variance of means of eight displays, over an eighth of that of single ones."""
    groups = rest[: rest.size // _GROUP * _GROUP].reshape(-1, _GROUP).mean(axis=1)
    variance = float(rest.var())
    return float(groups.var()) * _GROUP / variance if variance > 0 else 1.0
