"""What a net said about each image: where its label came, and the classes before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NUM_KEPT = 5


@dataclass(frozen=True)
class Predictions:
    """One row per image, in the order of the data; a few numbers of each, not all of its classes.

    Attributes:
        names: of the images.
        labels: their classes, int64 [images].
        num_better: number of other classes whose score is not lower than that of the label, int64
            [images]. An image is right at rank k where it is below k.
        label_probability: float32 [images].
        classes: the classes with the highest scores, best first, int64 [images, at most 5].
        probabilities: of these classes, float32 of the same shape.
        is_finite: whether all scores of an image are numbers, bool [images].
        num_classes: number of classes of the net.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    num_better: NDArray[np.int64]
    label_probability: NDArray[np.float32]
    classes: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    is_finite: NDArray[np.bool_]
    num_classes: int

    def __len__(self) -> int:
        return len(self.names)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The class with the highest score; of equal ones the first."""
        return self.classes[:, 0]

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The probability of the predicted class."""
        return self.probabilities[:, 0]

    @property
    def num_tied(self) -> int:
        """Number of images whose label is predicted but shares its score with another class."""
        return int(((self.predicted == self.labels) & (self.num_better > 0)).sum())

    def first(self, count: int) -> Predictions:
        """The first images only."""
        arrays = {
            name: value[:count] for name, value in vars(self).items() if name != "num_classes"
        }
        return Predictions(**arrays, num_classes=self.num_classes)


@dataclass
class PredictionList:
    """Collects :class:`Predictions` batch by batch."""

    num_classes: int
    _names: list[str] = field(default_factory=list)
    _columns: dict[str, list[NDArray[Any]]] = field(default_factory=dict)

    def add(
        self,
        names: Sequence[str],
        labels: NDArray[np.int64],
        scores: NDArray[np.float32],
        probabilities: NDArray[np.float32],
    ) -> None:
        """Adds a batch.

        The rank is counted as Caffe's Accuracy layer does (accuracy_layer.cpp): every class with a
        score ``>=`` that of the label counts as better, so that ties are mistakes; comparisons
        with NaN are false, so that a label with the score NaN is right at every rank.

        Args:
            names: of the images.
            labels: [images].
            scores: what Accuracy compares, [images, classes].
            probabilities: of the same shape.
        """
        rows = np.arange(len(labels))
        # The label itself is not counted, also where it is NaN and not equal to itself.
        better = (scores >= scores[rows, labels][:, None]).sum(axis=1) - 1
        order = np.argsort(-scores, axis=1, kind="stable")[:, :NUM_KEPT]
        self._names += names
        batch = {
            "labels": labels,
            "num_better": better,
            "label_probability": probabilities[rows, labels],
            "classes": order,
            "probabilities": np.take_along_axis(probabilities, order, axis=1),
            "is_finite": np.isfinite(scores).all(axis=1),
        }
        for column, values in batch.items():
            self._columns.setdefault(column, []).append(values)

    def predictions(self) -> Predictions:
        """All that was added; there must be something."""
        columns = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        return Predictions(tuple(self._names), **columns, num_classes=self.num_classes)
