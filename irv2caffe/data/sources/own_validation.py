"""Validation sets that come with a source, which is then not divided without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.data.sources.idx import validation_files
from irv2caffe.data.sources.ilsvrc import TRAIN_TAR, VAL_TAR
from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from irv2caffe.data.records.items import Source

_NAMES = ("val", "valid", "validation")


def refuse_own_validation(source: Source, split: str | None) -> None:
    """Refuses to divide a validation set, or a source that has one, unless that was asked for.

    Args:
        source: to be divided.
        split: as the user gave it; ``train`` asks for a division of the training images.

    Raises:
        UsageError: saying where the validation set is.
    """
    root = source.root
    if source.is_validation:
        raise UsageError(
            f"{root} is a validation set, which --val-fraction does not divide",
            "give the training images",
        )
    has_own = (
        source.kind == "cifar"
        or (source.kind == "idx" and validation_files(root))
        or (root.name == TRAIN_TAR and (root.parent / VAL_TAR).is_file())
    )
    if has_own and split != "train":
        raise UsageError(
            f"{root} comes with a validation set",
            "--split val builds its database; --split train with --val-fraction divides the "
            "training images",
        )


def notes_on_neighbours(source: Source) -> list[str]:
    """A note where a folder of validation images lies beside the source."""
    if source.kind != "folders":
        return []
    root = source.root.absolute()
    beside = (root.parent / name for name in _NAMES)
    return [
        f"{place} exists: if these are the validation images, leave --val-fraction out"
        for place in beside
        if place.is_dir() and place != root
    ]
