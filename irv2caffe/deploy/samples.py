"""Preprocessed images: for the comparison, for calibration, and what comes out of the net."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.atomic import write_bytes, write_text
from irv2caffe.errors import InputError, first_of
from irv2caffe.inference.crops import UnfitImageError
from irv2caffe.inference.feeding import feed
from irv2caffe.inference.finding import data_layer, placed, source_of
from irv2caffe.proto.text import read_net

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from irv2caffe.inference.images import Images
    from irv2caffe.inference.model import Model
    from irv2caffe.inference.runner import Runner

_BATCH = 8
_TOP = 5


@dataclass(frozen=True)
class Sample:
    """A preprocessed image.

    Attributes:
        name: of the image.
        label: its class, or None.
        values: float32 [channels, height, width].
    """

    name: str
    label: int | None
    values: NDArray[np.float32]


def images_of(model: Model) -> Path:
    """The images that the net was tested with in training.

    Raises:
        InputError: they are not known, or not there.
    """
    hint = "name a folder of images or a database with --images"
    layer = data_layer(read_net(model.train_val)[0]) if model.train_val is not None else None
    source = source_of(layer) if layer is not None and layer.type == "Data" else None
    if source is None or model.train_val is None:
        raise InputError("no images to run the nets on: the data of the training is unknown", hint)
    found = placed(str(source), model.train_val)
    if not found.exists():
        raise InputError(f"no images to run the nets on: {source} is gone", hint)
    return found


def take_samples(
    images: Images, model: Model, folder: Path, *, num_kept: int, num_written: int, kind: str
) -> tuple[list[Sample], list[str]]:
    """Preprocesses images, evenly spread over those that are given; writes and keeps some.

    Args:
        images: real images.
        model: that is to see them.
        folder: receives ``calibration/`` and the list of its files.
        num_kept: how many are returned.
        num_written: how many are written.
        kind: ``npy``, or ``bin`` for float32 values without a header.

    Returns:
        The first ``num_kept``, and the paths of those that were written.

    Raises:
        InputError: none of them can be read, or they do not fit the net.
    """
    kept: list[Sample] = []
    paths: list[str] = []
    names = images.names()
    count = max(num_kept, num_written)
    spread = _spread(names, count)
    first = _spread(spread, num_kept)  # these, too: sources are often in the order of the classes
    chosen = images.only(list(dict.fromkeys([*first, *spread])))
    for number, image in enumerate(chosen):
        try:
            values = feed(model.preprocessing, image.pixels)[0]
        except UnfitImageError as error:
            raise InputError(f"{images.source}: {image.name}: {error}") from error
        if number < num_kept:
            kept.append(Sample(image.name, image.label, values))
        if number < num_written:
            paths.append(f"calibration/{number:05d}.{kind}")
            write_bytes(folder / paths[-1], _encoded(values, kind))
    if not kept:
        skipped = [f"{skip.name}: {skip.reason}" for skip in chosen.skipped]
        raise InputError(f"{images.source}: no image can be read", first_of(skipped, 3))
    if paths:
        write_text(folder / "calibration.txt", "\n".join(paths) + "\n")
    return kept, paths


def _spread(names: Sequence[str], count: int) -> list[str]:
    """So many of the names, or all, evenly spread."""
    num = min(count, len(names))
    return [names[at * len(names) // num] for at in range(num)]


def _encoded(values: NDArray[np.float32], kind: str) -> bytes:
    if kind == "bin":
        return values.astype("<f4").tobytes()
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()


def run_samples(
    runner: Runner, samples: Sequence[Sample], blobs: Sequence[str], done: Callable[[int], None]
) -> list[NDArray[np.float32]]:
    """The values of blobs for all samples, in batches.

    Args:
        runner: of the net.
        samples: what to feed.
        blobs: their names.
        done: is told the number of images of each batch.
    """
    parts: list[list[Any]] = [[] for _ in blobs]
    for start in range(0, len(samples), _BATCH):
        batch = samples[start : start + _BATCH]
        found = runner.forward(np.stack([sample.values for sample in batch]))
        for part, blob in zip(parts, blobs, strict=True):
            part.append(np.array(found[blob]).reshape(len(batch), -1))
        done(len(batch))
    return [np.concatenate(part) for part in parts]


def write_expected(
    path: Path,
    samples: Sequence[Sample],
    files: Sequence[str],
    logits: NDArray[np.float32],
    probabilities: NDArray[np.float32],
) -> None:
    """Writes what the net gives for samples, as JSON."""
    entries = list(_expected(samples, files, logits, probabilities))
    write_text(path, json.dumps(entries, indent=1) + "\n")


def _expected(
    samples: Sequence[Sample],
    files: Sequence[str],
    logits: NDArray[np.float32],
    probabilities: NDArray[np.float32],
) -> Iterator[dict[str, Any]]:
    for sample, file, scores, shares in zip(samples, files, logits, probabilities, strict=False):
        best = np.argsort(-shares, kind="stable")[:_TOP]
        yield {
            "sample": file,
            "image": sample.name.encode("utf-8", "replace").decode(),
            "label": sample.label,
            "best": [[int(each), round(float(shares[each]), 6)] for each in best],
            "logits": [float(f"{value:.7g}") for value in scores],
        }
