"""The result of an evaluation, for a person and as JSON."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import first_of

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.data.records.items import Skipped
    from irv2caffe.evaluate.caffe_test import CaffeTest
    from irv2caffe.evaluate.metrics import Metrics
    from irv2caffe.evaluate.predictions import Predictions

MADE_BY = "irv2caffe evaluate"
_NUM_MISTAKES = 20


@dataclass(frozen=True)
class Evaluation:
    """How good a net, or an ensemble of nets, is on some images.

    Attributes:
        models: the ``.caffemodel`` files.
        data: the database or folder.
        part: what was taken of it: ``all``, or how many at random.
        class_names: names of the classes; empty if there are none.
        metrics: the figures.
        predictions: of each image.
        skipped: images that were not evaluated, with the reason.
        crops: views of each image.
        batch_size: images in a batch.
        engine: what ran the nets.
        images_per_second: with reading and preprocessing.
        batch_statistics: whether the net normalizes each TEST batch by itself.
        caffe: what ``caffe test`` prints; None for ensembles, several crops and parts of the data.
        by_batch_size: figures with other sizes of the batch.
        reestimated: the model with new BatchNorm statistics, and its figures.
        notes: remarks, one line each.
    """

    models: tuple[Path, ...]
    data: Path
    part: str
    class_names: tuple[str, ...]
    metrics: Metrics
    predictions: Predictions
    skipped: tuple[Skipped, ...]
    crops: int
    batch_size: int
    engine: str
    images_per_second: float
    batch_statistics: bool
    caffe: CaffeTest | None = None
    by_batch_size: tuple[tuple[int, Metrics], ...] = ()
    reestimated: tuple[Path, Metrics] | None = None
    notes: tuple[str, ...] = ()

    @property
    def findings(self) -> list[str]:
        """What makes the figures doubtful, one line each."""
        found = []
        figures = self.metrics
        if figures.num_not_finite:
            found.append(
                f"the outputs of {figures.num_not_finite:,} images are NaN or infinite; caffe test "
                "counts a label with NaN as right"
            )
        if figures.num_tied:
            found.append(
                f"{figures.num_tied:,} images are wrong only because another class has the same "
                "score, as Caffe counts: is the net dead, or its softmax saturated?"
            )
        if self.skipped:
            counts = Counter(one.reason for one in self.skipped)
            reasons = first_of([f"{why} ({num:,})" for why, num in counts.most_common()], 5)
            found.append(
                f"{len(self.skipped):,} images were left out, such as {self.skipped[0].name}: "
                f"{reasons}"
            )
        return found

    def name_of(self, label: int) -> str:
        """The name of a class, or its number."""
        return self.class_names[label] if self.class_names else str(label)

    def class_rows(self) -> list[dict[str, Any]]:
        """One row per class; NaN where a value has no meaning."""
        table = self.metrics.classes
        columns = (table.support, table.right, table.predicted)
        shares = (table.precision, table.recall, table.f1)
        return [
            {
                "class": label,
                "name": self.name_of(label),
                **dict(zip(("support", "right", "predicted"), map(int, counts), strict=True)),
                **dict(zip(("precision", "recall", "f1"), map(float, values), strict=True)),
            }
            for label, (counts, values) in enumerate(
                zip(zip(*columns, strict=True), zip(*shares, strict=True), strict=True)
            )
        ]

    def mistakes(self, most: int = _NUM_MISTAKES) -> list[dict[str, Any]]:
        """The most frequent mistakes."""
        return [
            {"true": self.name_of(true), "predicted": self.name_of(predicted), "count": count}
            for true, predicted, count in self.metrics.confusions.mistakes(most)
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        again = self.reestimated
        return {
            "made_by": MADE_BY,
            "models": [str(path) for path in self.models],
            "data": str(self.data),
            "part": self.part,
            "crops": self.crops,
            "batch_size": self.batch_size,
            "batch_statistics": self.batch_statistics,
            "engine": self.engine,
            "images_per_second": self.images_per_second,
            **finite(self.metrics.as_dict()),
            "caffe_test": self.caffe.as_dict() if self.caffe else None,
            "by_batch_size": [
                {"batch_size": size, **_headline(metrics)} for size, metrics in self.by_batch_size
            ],
            "reestimated": {"model": str(again[0]), **_headline(again[1])} if again else None,
            "classes": finite(self.class_rows()),
            "mistakes": self.mistakes(),
            "skipped": [[one.name, one.reason] for one in self.skipped],
            "findings": self.findings,
            "notes": list(self.notes),
        }


def _headline(metrics: Metrics) -> dict[str, Any]:
    values = {f"top{rank}": share for rank, share in metrics.top.items()}
    return {**values, "loss": metrics.loss if math.isfinite(metrics.loss) else None}


def finite(value: Any) -> Any:
    """The same value with None for NaN and infinity, for JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return value
