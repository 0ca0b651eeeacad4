"""CIFAR-10 and CIFAR-100: the python and the binary version, as archives or unpacked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.data.records.items import Item, Items, PixelFormat, Source
from irv2caffe.data.sources.classes import check_classes, notes_on_counts
from irv2caffe.data.sources.pickles import load_pickle
from irv2caffe.data.sources.unpack import read_members, scratch_file
from irv2caffe.errors import FormatError, InputError, MissingInputError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

_IMAGE = PixelFormat(3, 32, 32)
_IMAGE_BYTES = 3 * 32 * 32
_MAX_FILE_BYTES = 256 << 20
_MAX_NAME = 255
_TRAIN_10 = tuple(f"data_batch_{number}" for number in range(1, 6))
# Files of each split, by the file that identifies the version.
_VERSIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "data_batch_1": {"train": _TRAIN_10, "val": ("test_batch",)},
    "data_batch_1.bin": {
        "train": tuple(f"{name}.bin" for name in _TRAIN_10),
        "val": ("test_batch.bin",),
    },
    "train": {"train": ("train",), "val": ("test",)},
    "train.bin": {"train": ("train.bin",), "val": ("test.bin",)},
}
_META = ("batches.meta", "meta", "batches.meta.txt", "fine_label_names.txt")


@dataclass(frozen=True)
class _Batch:
    """Images, labels and (where given) names of one file."""

    pixels: bytes
    labels: tuple[int, ...]
    names: tuple[str, ...]


def is_cifar(path: Path) -> bool:
    """Whether an archive or a folder is one of the four versions, by its name or its files."""
    if path.is_dir():
        return any((path / first).is_file() for first in _VERSIONS) and any(
            (path / name).is_file() for name in _META
        )
    return path.name.startswith("cifar-") and ".tar" in path.name


def read_cifar(path: Path, split: str, table: tuple[str, ...] | None) -> Source:
    """Lists the images of one split.

    Args:
        path: ``cifar-10-python.tar.gz`` or another version, or its unpacked folder.
        split: ``train`` or ``val`` (which the archives call test).
        table: class names by label, or None for the data set's own.

    Raises:
        FormatError: files of the wrong format.
        MissingInputError: a file does not exist.
    """
    files = _files(path)
    version = next((first for first in _VERSIONS if first in files), None)
    if version is None:
        raise MissingInputError(f"{path} holds none of {', '.join(_VERSIONS)}")
    classes = _class_names(files, path)
    if table is not None:
        check_classes(list(classes), table, str(path))
    labels = [(table or classes).index(name) for name in classes]
    items = Items()
    store = scratch_file()
    for name in _VERSIONS[version][split]:
        if name not in files:
            raise MissingInputError(f"{path} has no {name}", "is it complete?")
        batch = _read_batch(files[name], name, path, num_classes=len(classes))
        start = store.tell()
        store.write(batch.pixels)
        for number, label in enumerate(batch.labels):
            plain = f"{name.removesuffix('.bin')}_{number:05d}"
            own = batch.names[number].replace("/", "_") if batch.names else plain
            place = start + number * _IMAGE_BYTES
            items.add(Item(f"{classes[label]}/{own}", labels[label], 0, place, _IMAGE_BYTES))
    store.flush()
    return Source(
        path,
        "cifar",
        items,
        table or classes,
        stores=(store,),
        pixels=_IMAGE,
        is_validation=split == "val",
        notes=tuple(notes_on_counts(items, table or classes)),
    )


def _files(path: Path) -> dict[str, bytes]:
    wanted = {
        *_META,
        *(name for parts in _VERSIONS.values() for files in parts.values() for name in files),
    }
    if not path.is_dir():
        return read_members(path, wanted.__contains__, _MAX_FILE_BYTES)
    files = {}
    for name in sorted(wanted):
        place = path / name
        if place.is_file():
            if place.stat().st_size > _MAX_FILE_BYTES:
                raise FormatError("too large for a file of CIFAR", path=place)
            files[name] = place.read_bytes()
    return files


def _class_names(files: dict[str, bytes], path: Path) -> tuple[str, ...]:
    for name in _META:
        if name not in files:
            continue
        if name.endswith(".txt"):
            lines = files[name].decode("utf-8", "replace").splitlines()
            return tuple(line.strip() for line in lines if line.strip())
        meta = _dictionary(files[name], name, path)
        names = meta.get(b"fine_label_names", meta.get(b"label_names"))
        if isinstance(names, list) and all(isinstance(word, (bytes, str)) for word in names):
            return tuple(_text(word) for word in names)
        raise FormatError(f"{name} holds no class names", path=path)
    raise MissingInputError(f"{path} has none of {', '.join(_META)}", "is it complete?")


def _read_batch(data: bytes, name: str, path: Path, *, num_classes: int) -> _Batch:
    if name.endswith(".bin"):
        batch = _binary(data, name, path)
    else:
        batch = _python(_dictionary(data, name, path), name, path)
    if len(batch.pixels) != len(batch.labels) * _IMAGE_BYTES or not batch.labels:
        raise FormatError(f"{name}: pixels and labels do not fit together", path=path)
    bad = [label for label in batch.labels if not 0 <= label < num_classes]
    if bad:
        raise FormatError(f"{name}: label {bad[0]} of {num_classes} classes", path=path)
    return batch


def _binary(data: bytes, name: str, path: Path) -> _Batch:
    """Records of one label (CIFAR-100: coarse, then fine) and the pixels."""
    num_labels = 1 if name.startswith(("data_batch", "test_batch")) else 2
    size = num_labels + _IMAGE_BYTES
    if len(data) % size:
        raise FormatError(f"{name} is cut short", path=path)
    starts = range(0, len(data), size)
    pixels = b"".join(data[start + num_labels : start + size] for start in starts)
    return _Batch(pixels, tuple(data[start + num_labels - 1] for start in starts), ())


def _python(batch: dict[Any, Any], name: str, path: Path) -> _Batch:
    pixels, names = batch.get(b"data"), batch.get(b"filenames", [])
    labels = batch.get(b"fine_labels", batch.get(b"labels"))
    pixels = getattr(pixels, "data", pixels)
    if not isinstance(pixels, bytes) or not isinstance(labels, list):
        raise FormatError(f"{name} holds no pixels and labels", path=path)
    if not all(type(label) is int for label in labels):
        raise FormatError(f"{name} holds labels that are no numbers", path=path)
    fits = isinstance(names, list) and len(names) == len(labels)
    words = tuple(_text(word) for word in names) if fits else ()
    return _Batch(pixels, tuple(labels), words)


def _dictionary(data: bytes, name: str, path: Path) -> dict[Any, Any]:
    try:
        value = load_pickle(data)
    except FormatError as error:
        raise FormatError(f"{name}: {error.message}", error.hint, path=path) from error
    if not isinstance(value, dict):
        raise FormatError(f"{name} holds no dictionary", path=path)
    return value


def _text(word: bytes | str) -> str:
    if not isinstance(word, (bytes, str)) or len(word) > _MAX_NAME:
        raise InputError("a name in a CIFAR file is no text, or too long")
    return word.decode("utf-8", "replace") if isinstance(word, bytes) else word
