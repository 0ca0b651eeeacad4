"""Runs one or several nets over images, batch by batch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.data.records.items import Skipped
from irv2caffe.errors import InputError
from irv2caffe.evaluate.predictions import PredictionList
from irv2caffe.inference.crops import UnfitImageError
from irv2caffe.inference.feeding import feed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from irv2caffe.evaluate.predictions import Predictions
    from irv2caffe.inference.images import Images
    from irv2caffe.inference.model import Model
    from irv2caffe.inference.runner import Runner

    Progress = Callable[[int, int], None]
    Inputs = tuple[NDArray[np.float32], ...]


@dataclass(frozen=True)
class Member:
    """A net of an ensemble: the model, what runs it, and the images as it wants them.

    Members may share one source of images, which is then read once.
    """

    model: Model
    runner: Runner
    images: Images


@dataclass
class Pass:
    """One pass over the images.

    Attributes:
        predictions: of the images, in their order.
        with_fill: the same with the first images again at the end, so that all batches are full.
        skipped: images that could not be read, or do not fit the net, with the reason.
        seconds: duration.
    """

    predictions: Predictions
    with_fill: Predictions
    skipped: list[Skipped]
    seconds: float


@dataclass
class _Row:
    name: str
    label: int
    inputs: Inputs  # per member, [crops, channels, height, width]


def run_over(members: Sequence[Member], *, batch_size: int, crops: int, progress: Progress) -> Pass:
    """Runs nets over images.

    With one crop, a forward pass sees exactly the images that Caffe's data layer would have in a
    batch; the last batch is filled up with the first images, as the data layer begins again. The
    probabilities of several crops and nets are averaged.

    Args:
        members: the nets; at least one.
        batch_size: images in a batch; with several crops, views.
        crops: views of each image.
        progress: called with (images done, images).

    Raises:
        InputError: no image with a label, or a label that the nets do not have.
    """
    started = time.monotonic()
    model = members[0].model
    collected = PredictionList(model.num_classes)
    total, num_done = len(members[0].images), 0
    skipped: list[Skipped] = []
    rows = _rows(members, crops, skipped, model.num_classes)
    step = batch_size if crops == 1 else max(1, batch_size // crops)
    first: list[_Row] = []
    batch: list[_Row] = []

    def finish() -> None:
        scores, probabilities = _forward(members, batch, batch_size, crops)
        labels = np.array([row.label for row in batch], np.int64)
        collected.add([row.name for row in batch], labels, scores, probabilities)
        batch.clear()

    for row in rows:
        first += [row] if len(first) < step and crops == 1 else []
        batch.append(row)
        num_done += 1
        if len(batch) == step:
            finish()
            progress(num_done + len(skipped), total)
    if not num_done:
        what = f", such as {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise InputError(f"{members[0].images.source}: no image could be used{what}")
    while batch and crops == 1 and len(batch) < step:
        batch += first[: step - len(batch)]
    if batch:
        finish()
    progress(total, total)
    found = collected.predictions()
    return Pass(found.first(num_done), found, skipped, time.monotonic() - started)


def _rows(
    members: Sequence[Member], crops: int, skipped: list[Skipped], num_classes: int
) -> Iterator[_Row]:
    """The images with their inputs for each net; those that do not fit are skipped.

    ``skipped`` is filled as the images go by.
    """
    sources = {id(member.images): member.images for member in members}
    for found in zip(*sources.values(), strict=True):
        by_source = dict(zip(sources, found, strict=True))
        images = [by_source[id(member.images)] for member in members]
        image = images[0]
        skipped[:] = [*members[0].images.skipped, *(one for one in skipped if one.reason == _UNFIT)]
        if len({each.name for each in images}) > 1:
            raise InputError(
                f"{image.name} can be read for one net only",
                "evaluate these models one by one",
            )
        if image.label is None:
            raise InputError(
                f"{image.name} has no label, so that it cannot be evaluated",
                "folders must be called as the classes; or give a database. irv2caffe classify "
                "needs no labels",
            )
        if not 0 <= image.label < num_classes:
            raise InputError(
                f"{image.name} has the label {image.label}, the net has {num_classes} classes",
                "is this the data of another net? labels begin with 0",
            )
        try:
            inputs = tuple(
                feed(member.model.preprocessing, each.pixels, crops=crops)
                for member, each in zip(members, images, strict=True)
            )
        except UnfitImageError as error:
            skipped.append(Skipped(image.name, _UNFIT, str(error)))
            continue
        yield _Row(image.name, image.label, inputs)
    skipped[:] = [*members[0].images.skipped, *(one for one in skipped if one.reason == _UNFIT)]


_UNFIT = "does not fit the net"


def _forward(
    members: Sequence[Member], rows: Sequence[_Row], batch_size: int, crops: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores and probabilities [rows, classes]; averaged over crops and nets in float64.

    The scores of one net with one crop are those before the softmax, which Accuracy compares; all
    others are the mean probabilities.
    """
    sums: NDArray[np.float64] | float = 0.0
    for place, member in enumerate(members):
        inputs = np.concatenate([row.inputs[place] for row in rows])
        parts = [
            _flat(member, member.runner.forward(inputs[start : start + batch_size]))
            for start in range(0, len(inputs), batch_size)
        ]
        scores, probabilities = (np.concatenate(each) for each in zip(*parts, strict=True))
        if len(members) == 1 and crops == 1:
            return scores, probabilities
        shaped = probabilities.astype(np.float64).reshape(len(rows), crops, -1)
        sums = sums + shaped.mean(axis=1)
    mean = sums / len(members)
    assert not isinstance(mean, float)
    return mean, mean.astype(np.float32)


def _flat(member: Member, blobs: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The scores and probabilities of a batch, [images, classes]."""
    scores, probabilities = (
        np.array(blobs[name]).reshape(-1, member.model.num_classes)
        for name in (member.model.logits, member.model.probabilities)
    )
    return scores, probabilities
