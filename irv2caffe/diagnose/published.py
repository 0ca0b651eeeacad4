"""The published curves as runs that can be diagnosed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.errors import UsageError
from irv2caffe.log.reference import NAMES, references
from irv2caffe.log.table import Table, TestRow, TrainRow

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.log.reference import Reference

NUM_TRAIN_IMAGES = 1_281_167  # of ILSVRC12
_NUM_CLASSES = 1000
# Images of an update: batch x GPUs x iter_size, as in the recipes of the same runs.
_EFFECTIVE_BATCH = {"original-2016": 64, "lim0606": 64, "twtygqyy": 20}
# Runs whose nets and solvers were published in Caffe's format and are recipes here.
RECIPES = {"original-2016": "seed"}
_TOP1, _TOP5, _LOSS = "accuracy/top-1", "accuracy/top-5", "loss"


def is_published(source: Path) -> bool:
    """Whether a source is the name of a published curve, and no file."""
    return str(source) in NAMES and not source.exists()


def published_table(name: str) -> Table:
    """The rows of a published curve.

    Raises:
        UsageError: it has only the figures of its end.
    """
    if name not in _EFFECTIVE_BATCH:
        raise UsageError(
            f"{name} has no curves", f"give one of: {', '.join(_EFFECTIVE_BATCH)}, or a log"
        )
    (reference,) = references([name])
    batch = _EFFECTIVE_BATCH[name]
    return Table(
        train=_train_rows(reference, batch),
        test=_test_rows(reference, batch),
        restarts=(),
        images_per_iteration=batch,
        num_train_images=NUM_TRAIN_IMAGES,
        pieces=((0, batch),),
        num_classes=_NUM_CLASSES,
        loss_weights={_LOSS: 1.0},
    )


def _by_epoch(reference: Reference, *metrics: str) -> dict[float, dict[str, float]]:
    """Epoch to the values of metrics."""
    found: dict[float, dict[str, float]] = {}
    for metric in metrics:
        for epoch, value in reference.curves.get(metric, ()):
            if epoch is not None:
                found.setdefault(epoch, {})[metric] = value
    return dict(sorted(found.items()))


def _iteration(epoch: float, batch: int) -> int:
    return round(epoch * NUM_TRAIN_IMAGES / batch)


def _train_rows(reference: Reference, batch: int) -> tuple[TrainRow, ...]:
    """Displays of the loss. Errors on training images are no outputs of a display."""
    return tuple(
        TrainRow(_iteration(epoch, batch), epoch, values["train_loss"], None, None, None)
        for epoch, values in _by_epoch(reference, "train_loss").items()
    )


def _test_rows(reference: Reference, batch: int) -> tuple[TestRow, ...]:
    rows = []
    for epoch, values in _by_epoch(reference, "val_top1_error", "val_top5_error").items():
        top1, top5 = values.get("val_top1_error"), values.get("val_top5_error")
        errors = {_TOP1: top1, _TOP5: top5}
        outputs = {name: 1 - error / 100 for name, error in errors.items() if error is not None}
        rows.append(TestRow(_iteration(epoch, batch), epoch, 0, top1, top5, None, outputs))
    return tuple(rows)
