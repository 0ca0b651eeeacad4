"""IDX files: MNIST and other data sets in its format, gzipped or not."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from irv2caffe.data.records.items import Item, Items, PixelFormat, Source
from irv2caffe.data.sources.classes import notes_on_counts
from irv2caffe.data.sources.unpack import copy_exactly, most_unpacked, open_plain, read_exactly
from irv2caffe.errors import FormatError, InputError, MissingInputError
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

_UNSIGNED_BYTES = 0x08
_MAX_SIDE = 65_500
_ITEM_BYTES = 64  # memory for an image besides its pixels
# EMNIST's files have the split in the middle of their names.
_NAMES = {"train": ("train",), "val": ("t10k", "test")}


def is_idx(path: Path) -> bool:
    """Whether a folder contains, or a file is, an IDX file of images."""
    if path.is_dir():
        return any(_image_files(path, split) for split in _NAMES)
    return "idx3-ubyte" in path.name


def read_idx(path: Path, split: str, table: tuple[str, ...] | None) -> Source:
    """Lists the images of one split.

    Args:
        path: the folder that contains ``train-images-idx3-ubyte.gz`` and the others, or that file.
        split: ``train`` or ``val`` (``t10k``).
        table: class names by label; None uses the numbers as names.

    Raises:
        FormatError: a file of the wrong format.
        MissingInputError: a file does not exist.
    """
    images = _find_images(path, split) if path.is_dir() else path
    labels_path = _labels_beside(images)
    with open_plain(images) as stream:
        count, pixels = _image_header(stream, images)
        labels = _read_labels(labels_path, images, count)
        store = copy_exactly(stream, count * pixels.height * pixels.width, images)
    classes = table or tuple(str(label) for label in range(max(labels) + 1))
    if max(labels) >= len(classes):
        raise InputError(f"{labels_path} has label {max(labels)} of {len(classes)} classes")
    items = Items()
    stem = images.name.partition("-images")[0]
    size = pixels.height * pixels.width
    for number, label in enumerate(labels):
        items.add(Item(f"{classes[label]}/{stem}_{number:05d}", label, 0, number * size, size))
    return Source(
        path,
        "idx",
        items,
        classes,
        stores=(store,),
        pixels=pixels,
        is_validation=any(name in stem.split("-") for name in _NAMES["val"]),
        notes=tuple(notes_on_counts(items, classes)),
    )


def validation_files(path: Path) -> list[Path]:
    """Files of validation images that come with a folder, or with a file of training images."""
    return _image_files(path if path.is_dir() else path.parent, "val")


def _image_files(folder: Path, split: str) -> list[Path]:
    return sorted(
        path
        for path in folder.glob("*images-idx3-ubyte*")
        if set(path.name.partition("-images")[0].split("-")) & set(_NAMES[split])
    )


def _find_images(folder: Path, split: str) -> Path:
    found = _image_files(folder, split)
    stems = {path.name.removesuffix(".gz") for path in found}
    if not found:
        raise MissingInputError(f"{folder} has no {_NAMES[split][0]}-images-idx3-ubyte(.gz)")
    if len(stems) > 1:
        raise InputError(
            f"{folder} holds several data sets: {', '.join(sorted(stems))}", "name one of the files"
        )
    return found[0]


def _labels_beside(images: Path) -> Path:
    """The labels of an image file; either of the two may be gzipped."""
    plain = images.name.removesuffix(".gz").replace("images-idx3", "labels-idx1")
    for name in (plain, f"{plain}.gz"):
        if (images.parent / name).is_file():
            return images.parent / name
    raise MissingInputError(f"{images.parent / plain}(.gz): no such file")


def _read_labels(path: Path, images: Path, num_images: int) -> bytes:
    with open_plain(path) as stream:
        (count,) = _dimensions(stream, 1, path)
        if count != num_images:
            raise FormatError(
                f"{num_images:,} images, but {path.name} has {count:,} labels", path=images
            )
        labels = read_exactly(stream, count, path)
        if stream.read(1):
            raise FormatError("holds more labels than its header says", path=path)
        return labels


def _image_header(stream: IO[bytes], path: Path) -> tuple[int, PixelFormat]:
    count, height, width = _dimensions(stream, 3, path)
    if not (count and 0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
        raise FormatError(f"{count:,} images of {width} x {height} pixels", path=path)
    size = count * (height * width + _ITEM_BYTES)
    if size > most_unpacked(path):
        raise FormatError(
            f"would unpack to {format_bytes(size)}, far more than images pack to",
            "is it the right file? unpack it yourself if it is",
            path=path,
        )
    return count, PixelFormat(1, height, width)


def _dimensions(stream: IO[bytes], wanted: int, path: Path) -> tuple[int, ...]:
    zero, kind, num_dims = struct.unpack(">HBB", read_exactly(stream, 4, path))
    if zero != 0 or kind != _UNSIGNED_BYTES or num_dims != wanted:
        raise FormatError(f"not an IDX file of bytes with {wanted} dimension(s)", path=path)
    return struct.unpack(f">{wanted}I", read_exactly(stream, 4 * wanted, path))
