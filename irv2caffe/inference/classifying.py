"""The most probable classes of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.data.records.items import Skipped
from irv2caffe.inference.crops import UnfitImageError
from irv2caffe.inference.feeding import feed
from irv2caffe.shapes.infer import infer
from irv2caffe.shapes.memory import add, memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from irv2caffe.inference.images import Image, Images
    from irv2caffe.inference.model import Model
    from irv2caffe.inference.runner import Runner

_MOST_IMAGES = 32
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Choice:
    """A class, and how probable it is.

    Attributes:
        label: its number.
        name: its name; the number where there is none.
        probability: from 0 to 1.
    """

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Classified:
    """An image, and its most probable classes.

    Attributes:
        image: with its pixels at the stored size.
        top: the most probable classes, the first most.
    """

    image: Image
    top: tuple[Choice, ...]


def batch_size_for(model: Model) -> int:
    """How many images to run together: up to 32, and within 1 GB of blobs."""
    blobs = add(memory(infer(model.net, "TEST"), backward=False)).of_batch
    return max(1, min(_MOST_IMAGES, _MOST_BYTES // max(1, blobs)))


def classify(
    model: Model, images: Images, runner: Runner, *, top: int = 3, crops: int = 1
) -> Iterator[Classified | Skipped]:
    """Classifies images in their order.

    Args:
        model: what to feed and the names of the classes.
        images: of :func:`irv2caffe.inference.images.read_images` for this model.
        runner: of the model, with the blobs of its logits and probabilities.
        top: number of classes to return.
        crops: views of each image, whose probabilities are averaged.

    Yields:
        Each image with its classes; those that cannot be read or fed, with the reason, as they
        come.
    """
    size = max(1, batch_size_for(model) // crops)
    batch: list[tuple[Image, NDArray[np.float32]]] = []
    for image in images.outcomes():
        fed = image if isinstance(image, Skipped) else _fed(model, image, crops)
        if isinstance(fed, Skipped):
            yield from _of_batch(model, batch, runner, top)
            batch = []
            yield fed
            continue
        batch.append(fed)
        if len(batch) == size:
            yield from _of_batch(model, batch, runner, top)
            batch = []
    yield from _of_batch(model, batch, runner, top)


def _fed(model: Model, image: Image, crops: int) -> tuple[Image, NDArray[np.float32]] | Skipped:
    try:
        return image, feed(model.preprocessing, image.pixels, crops=crops)
    except UnfitImageError as error:
        return Skipped(image.name, str(error))


def _of_batch(
    model: Model,
    batch: Iterable[tuple[Image, NDArray[np.float32]]],
    runner: Runner,
    top: int,
) -> Iterator[Classified]:
    images, arrays = [image for image, _ in batch], [views for _, views in batch]
    if not images:
        return
    crops, size = len(arrays[0]), batch_size_for(model)
    views = np.concatenate(arrays)
    parts = [runner.forward(views[at : at + size]) for at in range(0, len(views), size)]
    scores, probabilities = (
        np.concatenate([_rows(part[name]) for part in parts]).reshape(len(images), crops, -1)
        for name in (model.logits, model.probabilities)
    )
    means = probabilities.mean(axis=1, dtype=np.float64)
    # Far below the first classes float32 probabilities are 0, but scores still differ.
    order = np.argsort(-(scores[:, 0] if crops == 1 else means), axis=1, kind="stable")[:, :top]
    for image, row, found in zip(images, order.tolist(), means, strict=True):
        yield Classified(image, tuple(_choice(model, label, found[label]) for label in row))


def _rows(blob: NDArray[Any]) -> NDArray[Any]:
    return blob.reshape(len(blob), -1)


def _choice(model: Model, label: int, probability: float) -> Choice:
    name = model.class_names[label] if model.class_names else str(label)
    return Choice(label, name, float(probability))
