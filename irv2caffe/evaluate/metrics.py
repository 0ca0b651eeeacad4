"""Figures of predictions: errors, table of classes, confusions, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from irv2caffe.evaluate.predictions import Predictions

NUM_BINS = 15
_SMALLEST = float(np.finfo(np.float32).tiny)  # FLT_MIN, as in softmax_loss_layer.cpp


@dataclass(frozen=True)
class ClassTable:
    """Counts of each class, int64 [classes]."""

    support: NDArray[np.int64]
    predicted: NDArray[np.int64]
    right: NDArray[np.int64]

    @property
    def precision(self) -> NDArray[np.float64]:
        """The share of right ones among what was predicted as the class; NaN if nothing was."""
        return _ratio(self.right, self.predicted)

    @property
    def recall(self) -> NDArray[np.float64]:
        """The share of images of the class that were predicted as it; NaN without images."""
        return _ratio(self.right, self.support)

    @property
    def f1(self) -> NDArray[np.float64]:
        """The harmonic mean of precision and recall; NaN for a class that does not occur."""
        return _ratio(2 * self.right, self.support + self.predicted)


@dataclass(frozen=True)
class Confusions:
    """How often which class was predicted for which; only what occurred.

    Attributes:
        true: int64 [pairs].
        predicted: int64 [pairs].
        count: int64 [pairs].
    """

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    count: NDArray[np.int64]

    def matrix(self, num_classes: int) -> NDArray[np.int64]:
        """Counts [true class, predicted class]."""
        counts = np.zeros((num_classes, num_classes), np.int64)
        counts[self.true, self.predicted] = self.count
        return counts

    def mistakes(self, most: int) -> list[tuple[int, int, int]]:
        """The most frequent mistakes: (true class, predicted class, count)."""
        wrong = np.flatnonzero(self.true != self.predicted)
        order = wrong[np.argsort(-self.count[wrong], kind="stable")][:most]
        columns = (self.true[order], self.predicted[order], self.count[order])
        return list(zip(*(column.tolist() for column in columns), strict=True))


@dataclass(frozen=True)
class Calibration:
    """Whether probabilities are what they say: bins of the probability of the predicted class.

    Attributes:
        edges: of the bins, [bins + 1].
        count: images in each bin, [bins].
        confidence: their mean probability, NaN for empty bins.
        accuracy: their share of right ones, NaN for empty bins.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def ece(self) -> float:
        """The expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3)."""
        gap = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float((gap * self.count).sum() / self.count.sum())


@dataclass(frozen=True)
class Metrics:
    """Figures of a set of images.

    Attributes:
        num_images: number of images.
        top: accuracy by rank, as Caffe's Accuracy layer counts: 1, and 5 if there are 5 classes.
        loss: mean of -log(probability of the label), as SoftmaxWithLoss has it.
        classes: table of the classes.
        confusions: pairs of classes.
        calibration: of the probabilities.
        num_tied: images that are wrong only because another class has the same score.
        num_not_finite: images with scores that are NaN or infinite.
    """

    num_images: int
    top: dict[int, float]
    loss: float
    classes: ClassTable
    confusions: Confusions
    calibration: Calibration
    num_tied: int
    num_not_finite: int

    @property
    def mean_recall(self) -> float:
        """The mean of the recalls of classes that have images, also named balanced accuracy."""
        return float(np.nanmean(self.classes.recall))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        bins = self.calibration
        return {
            "num_images": self.num_images,
            **{f"top{rank}": share for rank, share in self.top.items()},
            "loss": self.loss,
            "mean_recall": self.mean_recall,
            "ece": bins.ece,
            "num_tied": self.num_tied,
            "num_not_finite": self.num_not_finite,
            "calibration": {
                name: getattr(bins, name).tolist()
                for name in ("edges", "count", "confidence", "accuracy")
            },
        }


def measure(predictions: Predictions) -> Metrics:
    """The figures of at least one image."""
    num_classes = predictions.num_classes
    ranks = [1, 5] if num_classes >= 5 else [1]
    loss = -np.log(np.maximum(predictions.label_probability.astype(np.float64), _SMALLEST))
    right = predictions.predicted == predictions.labels
    return Metrics(
        num_images=len(predictions),
        top={rank: float((predictions.num_better < rank).mean()) for rank in ranks},
        loss=float(loss.mean()),
        classes=ClassTable(
            *(
                np.bincount(values, minlength=num_classes)
                for values in (
                    predictions.labels,
                    predictions.predicted,
                    predictions.labels[right],
                )
            )
        ),
        confusions=_confusions(predictions),
        calibration=_calibration(predictions.confidence, right),
        num_tied=predictions.num_tied,
        num_not_finite=int((~predictions.is_finite).sum()),
    )


def _confusions(predictions: Predictions) -> Confusions:
    pairs = np.stack([predictions.labels, predictions.predicted])
    found, count = np.unique(pairs, axis=1, return_counts=True)
    return Confusions(found[0], found[1], count)


def _calibration(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> Calibration:
    """Bins of equal width; a value on an edge belongs to the lower bin."""
    edges = np.linspace(0.0, 1.0, NUM_BINS + 1)
    known = np.nan_to_num(confidence.astype(np.float64))
    place = np.clip(np.searchsorted(edges, known, side="left") - 1, 0, NUM_BINS - 1)
    count, shares, hits = (
        np.bincount(place, weights, NUM_BINS) for weights in (None, known, right.astype(float))
    )
    return Calibration(edges, count.astype(np.int64), _ratio(shares, count), _ratio(hits, count))


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """The quotient; NaN where the whole is 0."""
    result = np.full(len(whole), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result
