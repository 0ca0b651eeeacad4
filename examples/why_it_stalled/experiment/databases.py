"""The databases: a part of CIFAR-100, sorted by class and shuffled."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from experiment.arms import MANY
from experiment.nets import CROP, MEAN
from irv2caffe.atomic import atomic_folder
from irv2caffe.data.lmdb_store.reading import open_reader
from irv2caffe.data.records.datum import parse_datum
from irv2caffe.data.records.decode import stored_pixels
from irv2caffe.errors import InputError, MissingInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from experiment.arms import Arm, Size

_CLASSES = 100


@dataclass(frozen=True)
class Images:
    """Images as a net takes them, and their labels.

    Attributes:
        data: [images, 3, height, width], the middle of each, less the mean.
        labels: of the images.
    """

    data: NDArray[np.float32]
    labels: NDArray[np.int64]


def training_database(folder: Path, arm: Arm) -> Path:
    """The database that an arm trains on."""
    if arm.many:
        return folder / "many"
    if arm.order == "sorted":
        return folder / "sorted"
    return folder / ("shuffled_middle" if arm.augment == "none" else "shuffled")


def read_images(database: Path) -> Images:
    """All images of a database."""
    data, labels = [], []
    mean = np.array(MEAN, np.float32)
    with open_reader(database) as reader:
        for _, value in reader:
            pixels = middle(stored_pixels(value))
            data.append((pixels.astype(np.float32) - mean).transpose(2, 0, 1))
            labels.append(parse_datum(value).label)
    return Images(np.stack(data), np.array(labels, np.int64))


def middle(pixels: NDArray[Any]) -> NDArray[Any]:
    """The central crop of an image, height x width x channels."""
    top, left = ((side - CROP) // 2 for side in pixels.shape[:2])
    return pixels[top : top + CROP, left : left + CROP]


def make_databases(source: Path, out: Path, size: Size) -> None:
    """Makes the databases in a folder, unless it has them already.

    Args:
        source: ``cifar-100-python.tar.gz``, or a folder with ``train.tar`` and ``test.tar``, whose
            folders are the classes.
        out: gets ``sorted``, ``shuffled``, ``shuffled_middle`` (of the middles of the images),
            ``many`` (more of them, shuffled) and ``val``.
        size: which part of CIFAR-100.

    Raises:
        MissingInputError: there is no such source.
        InputError: the folder has the databases of another size.
    """
    wanted = [size.classes, size.train_images, size.val_images]
    made = out / "size.json"
    if made.is_file():
        if json.loads(made.read_text()) != wanted:
            raise InputError(f"{out} has databases of another size", "give another --data")
        return
    if not source.exists():
        raise MissingInputError(f"{source} does not exist")
    with atomic_folder(out) as aside, tempfile.TemporaryDirectory() as scratch:
        counts = {"few": size.train_images, "many": MANY * size.train_images}
        _write_part(source, Path(scratch), "train", size.classes, counts)
        _write_part(source, Path(scratch), "val", size.classes, {"val": size.val_images})
        for folder, name, flag in (
            ("few", "sorted", "--no-shuffle"),
            ("few", "shuffled", "--shuffle"),
            ("few_middle", "shuffled_middle", "--shuffle"),
            ("many", "many", "--shuffle"),
            ("val", "val", "--shuffle"),  # which mixes the TEST batches
        ):
            _make_lmdb(Path(scratch) / folder, aside / name, flag)
        (aside / "size.json").write_text(json.dumps(wanted))


def _write_part(
    source: Path, scratch: Path, split: str, classes: int, counts: dict[str, int]
) -> None:
    """Writes class folders of PNG files: the first images of some classes, by name of folder."""
    whole = scratch / f"all_{split}"
    archive = source / {"train": "train.tar", "val": "test.tar"}[split]
    words = [str(archive)] if source.is_dir() else [str(source), "--split", split]
    _make_lmdb(Path(words[0]), whole, "--no-shuffle", *words[1:])
    step = _CLASSES // classes
    for label, number, pixels in _first_of_each(whole, max(counts.values())):
        if label % step or label // step >= classes:
            continue
        for name, count in counts.items():
            if number < count:
                _write(scratch / name, label, number, pixels)
                _write(scratch / f"{name}_middle", label, number, middle(pixels))


def _write(folder: Path, label: int, number: int, pixels: NDArray[Any]) -> None:
    path = folder / f"{label:03d}" / f"{number:04d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise InputError(f"cannot write {path}")


def _first_of_each(database: Path, count: int) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """The first images of each class: label, number and pixels."""
    seen = [0] * _CLASSES
    with open_reader(database) as reader:
        for _, value in reader:
            label = parse_datum(value).label
            if 0 <= label < _CLASSES and seen[label] < count:
                yield label, seen[label], stored_pixels(value)
                seen[label] += 1


def _make_lmdb(source: Path, out: Path, *words: str) -> None:
    command = [sys.executable, "-m", "irv2caffe", "make-lmdb", str(source), str(out)]
    command += ["--resize", "none", "--mean", "none", "--workers", "1", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 3}:  # 3: CIFAR-100 has some images twice
        raise InputError(f"make-lmdb {source}: {done.stderr.strip()[-500:]}")
