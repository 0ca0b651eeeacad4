"""Errors of a snapshot under each kind of statistics of BatchNorm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    Part = Literal["val", "train"]
    Errors = dict[str, Any]

# Sizes of the TEST batches whose own statistics are taken, and how many images are tested.
TEST_BATCHES = {2: 200, 10: 500, 50: 500}
TRAIN_IMAGES = 500
REESTIMATING_BATCHES = 20
_RUNNING_BATCH = 100


class Evaluator(Protocol):
    """Runs the net of one training with the weights of its snapshots."""

    batch_size: int

    def measure(
        self, weights: Path, part: Part, batch: int, most: int | None, *, batch_statistics: bool
    ) -> Errors:
        """Top-1 error in percent, mean loss and number of images.

        Args:
            weights: a .caffemodel.
            part: which images: of validation, or of training, in random order.
            batch: images of a batch; those that fill no batch are left out.
            most: images to take; None for all.
            batch_statistics: BatchNorm takes those of the batch, not the running ones.
        """
        ...

    def reestimated(self, weights: Path) -> Path:
        """A model with the plain means of the statistics of training batches."""
        ...


def curve_point(by: Evaluator, weights: Path) -> dict[str, Errors]:
    """The validation errors that are measured several times in a run."""
    batch, most = 50, TEST_BATCHES[50]
    return {
        "running": by.measure(weights, "val", _RUNNING_BATCH, None, batch_statistics=False),
        "batch 50": by.measure(weights, "val", batch, most, batch_statistics=True),
    }


def everything(by: Evaluator, weights: Path) -> dict[str, Errors]:
    """The errors of validation and training images under all statistics."""

    def running(model: Path, part: Part, most: int | None) -> Errors:
        return by.measure(model, part, _RUNNING_BATCH, most, batch_statistics=False)

    def own(part: Part, batch: int, most: int) -> Errors:
        return by.measure(weights, part, batch, most, batch_statistics=True)

    found = {f"batch {batch}": own("val", batch, most) for batch, most in TEST_BATCHES.items()}
    return found | {
        "running": running(weights, "val", None),
        "train running": running(weights, "train", TRAIN_IMAGES),
        "train batch": own("train", by.batch_size, TRAIN_IMAGES),
        "reestimated": running(by.reestimated(weights), "val", None),
    }


def num_batches(have: int, batch: int, most: int | None) -> tuple[int, int]:
    """How many batches, and of what size: at least one."""
    count = have if most is None else min(have, most)
    return max(1, count // batch), min(batch, count)


def errors(error: float, loss: float, count: int) -> Errors:
    """Error in percent, loss and number of images, for JSON."""
    return {"error": round(error, 3), "loss": finite(loss), "n": count}


def finite(value: float) -> float | None:
    """A number for JSON; None for NaN and infinity."""
    return round(value, 5) if math.isfinite(value) else None
