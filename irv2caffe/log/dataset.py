"""The number of training images, from the run folder, prototxt headers, the log or ILSVRC12."""

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
    """The number of training images, or None, and its source."""

    number: int | None
    source: str


def find_train_images(log: Log, folder: Path | None = None) -> TrainImages:
    """Looks in config.json, build-net's headers, NVCaffe's epochs and names of data sets.

    Args:
        log: the history of the run.
        folder: the log's folder, whose config.json and prototxts are read.
    """
    if folder is not None:
        found = _from_config(folder) or _from_headers(folder)
        if found is not None:
            return found
    batch = log.images_per_iteration(log.processes[-1]) if log.processes else None
    if log.epochs_at is not None and batch:
        iteration, epoch = log.epochs_at
        number = iteration * batch / epoch
        if 1 <= number < math.inf:
            return TrainImages(round(number), "the epochs in the log")
    for net in log.nets:
        known = net.source is not None and _ILSVRC12_NAMES.search(net.source)
        if known and net.phase == "TRAIN" and net.num_classes == 1000:
            return TrainImages(_ILSVRC12, f"taken for ILSVRC12, from the name {net.source}")
    return TrainImages(None, "the log does not contain the number of images in an epoch")


def _from_config(folder: Path) -> TrainImages | None:
    """From the config.json that ``train`` writes into its run folder."""
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
