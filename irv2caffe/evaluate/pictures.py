"""The pictures of an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.evaluate.evaluation import Evaluation

MOST_CLASSES = 2000  # of a matrix


def draw_pictures(evaluation: Evaluation, folder: Path, *, dark: bool) -> None:
    """Writes confusion.png, unless there are too many classes for a matrix, and calibration.png."""
    from irv2caffe.plot.confusion import draw_calibration, draw_confusion

    num_classes = evaluation.predictions.num_classes
    if num_classes <= MOST_CLASSES:
        matrix = evaluation.metrics.confusions.matrix(num_classes)
        draw_confusion(matrix, evaluation.class_names, folder / "confusion.png", dark=dark)
    bins = evaluation.metrics.calibration
    draw_calibration(
        bins.count, bins.confidence, bins.accuracy, folder / "calibration.png", dark=dark
    )
