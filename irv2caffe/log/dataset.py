"""The number of training images, which few logs contain."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from irv2caffe.system import open_regular, read_json_object

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.log.read.history import Log

_ILSVRC12 = 1_281_167
_ILSVRC12_NAMES = re.compile(r"ilsvrc|imagenet", re.IGNORECASE)
_HEADER = re.compile(r"^# ([\d,]{1,20}) training images = ", re.MULTILINE | re.ASCII)
_HEADER_BYTES = 4096
_PROTOTXTS = ("solver.prototxt", "train_val.prototxt")


class TrainImages(NamedTuple):
    """The size of the training set, and where it is from."""

    number: int | None
    source: str


def find_train_images(log: Log, folder: Path | None = None) -> TrainImages:
    """Looks in the run folder, headers of build-net, NVCaffe's epochs and well-known names.

    Args:
        log: a history.
        folder: of the log; prototxts beside it are read.
    """
    if folder is not None:
        found = _from_config(folder) or _from_headers(folder)
        if found is not None:
            return found
    batch = log.images_per_iteration(log.pieces[-1]) if log.pieces else None
    if log.epochs_at is not None and batch:
        iteration, epoch = log.epochs_at
        number = iteration * batch / epoch
        if 1 <= number < math.inf:
            return TrainImages(round(number), "the epochs in the log")
    for net in log.nets:
        known = net.source is not None and _ILSVRC12_NAMES.search(net.source)
        if known and net.phase == "TRAIN" and net.num_classes == 1000:
            return TrainImages(_ILSVRC12, f"taken for ILSVRC12, from the name {net.source}")
    return TrainImages(None, "the log does not say how many images an epoch has")


def _from_config(folder: Path) -> TrainImages | None:
    """From what ``train`` keeps in its run folder."""
    number = read_json_object(folder / "config.json").get("num_train_images")
    return TrainImages(number, "config.json") if type(number) is int and number > 0 else None


def _from_headers(folder: Path) -> TrainImages | None:
    for name in _PROTOTXTS:
        try:
            with open_regular(folder / name) as stream:
                head = (stream.read(_HEADER_BYTES) or b"").decode("utf-8", "replace")
        except OSError:
            continue
        match = _HEADER.search(head)
        if match and (number := int(match[1].replace(",", "") or 0)):
            return TrainImages(number, f"the header of {name}")
    return None
