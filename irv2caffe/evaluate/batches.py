"""Runs one or several nets over images, batch by batch."""

from __future__ import annotations

import itertools
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
    from pathlib import Path

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


_NO_LABEL = "no label"


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
        InputError: no image can be used.
    """
    started = time.monotonic()
    model = members[0].model
    collected = PredictionList(model.num_classes)
    total, num_done = len(members[0].images), 0
    unfit: list[Skipped] = []
    step = batch_size if crops == 1 else max(1, batch_size // crops)
    first: list[_Row] = []
    batch: list[_Row] = []

    def finish() -> None:
        scores, probabilities = _forward(members, batch, batch_size, crops)
        labels = np.array([row.label for row in batch], np.int64)
        collected.add([row.name for row in batch], labels, scores, probabilities)
        batch.clear()

    for row in _rows(members, crops, unfit):
        first += [row] if len(first) < step and crops == 1 else []
        batch.append(row)
        num_done += 1
        if len(batch) == step:
            finish()
            progress(num_done + len(unfit) + len(members[0].images.skipped), total)
    skipped = [*members[0].images.skipped, *unfit]
    if not num_done:
        raise _nothing_usable(members[0].images.source, skipped)
    while batch and crops == 1 and len(batch) < step:
        batch += first[: step - len(batch)]
    if batch:
        finish()
    progress(total, total)
    found = collected.predictions()
    return Pass(found.first(num_done), found, skipped, time.monotonic() - started)


def _rows(members: Sequence[Member], crops: int, unfit: list[Skipped]) -> Iterator[_Row]:
    """The images with their inputs for each net; those that do not fit are added to ``unfit``."""
    sources = {id(member.images): member.images for member in members}
    num_classes = members[0].model.num_classes
    for found in itertools.zip_longest(*sources.values()):
        names = [image.name if image else None for image in found]
        if len(set(names)) > 1:
            name = next(filter(None, names))
            raise InputError(
                f"{name} can be read for one net only", "evaluate these models one by one"
            )
        by_source = dict(zip(sources, found, strict=True))
        images = [by_source[id(member.images)] for member in members]
        name, label = images[0].name, images[0].label
        if label is None or not 0 <= label < num_classes:
            reason = _NO_LABEL if label is None else f"label {label} is no class of the net"
            unfit.append(Skipped(name, reason))
            continue
        try:
            inputs = tuple(
                feed(member.model.preprocessing, image.pixels, crops=crops)
                for member, image in zip(members, images, strict=True)
            )
        except UnfitImageError as error:
            unfit.append(Skipped(name, "does not fit the net", str(error)))
            continue
        yield _Row(name, label, inputs)


def _nothing_usable(source: Path, skipped: Sequence[Skipped]) -> InputError:
    """The error for data of which not a single image can be used."""
    if not skipped:
        return InputError(f"{source} holds no images", "check the path")
    first = skipped[0]
    hint = "is this the data of another net? its labels begin with 0, its folders are its classes"
    if first.reason == _NO_LABEL:
        hint = (
            "its folders must be called as the classes of the net; or give a database, or --list. "
            "irv2caffe classify needs no labels"
        )
    why = f"{first.reason}: {first.detail}" if first.detail else first.reason
    return InputError(f"{source}: no image can be used, such as {first.name}: {why}", hint)


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
