"""The list of images of a data set, packed in arrays: a million images take 80 MB."""

from __future__ import annotations

import errno
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

MAX_LABEL = 0x7FFFFFFF  # Datum.label is an int32
MAX_FILE_BYTES = 1 << 30  # of an image file; a larger one is a mistake or hostile
WHOLE_FILE = -1
GONE = "no such file"
# Errors of one file or folder; all others are errors of the disk.
OF_ONE_FILE = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
    | {errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO}
)


@dataclass(frozen=True, slots=True)
class Item:
    """An image of the data set.

    Attributes:
        name: path below the source folder or in the archive, with ``/``; part of the key.
        label: of its class, from 0.
        store: index in :attr:`Source.stores` of the file that contains it; ``WHOLE_FILE`` where it
            is a file of its own.
        offset: of its bytes in the store.
        size: number of its bytes.
    """

    name: str
    label: int
    store: int = WHOLE_FILE
    offset: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that was skipped, and why.

    Attributes:
        name: its path.
        reason: a few words, the same for all images with this problem.
        detail: of this image; may be empty.
    """

    name: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """Layout of the pixels in a store of uncompressed images.

    Attributes:
        channels: planes of R, G, B, or one of gray.
        height: in pixels.
        width: in pixels.
    """

    channels: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class SplitPart:
    """Which part of a divided data set a source is.

    Attributes:
        name: ``train`` or ``val``.
        val_fraction: share of each class that is set aside for validation.
        seed: of the choice.
        num_duplicates: images of both parts that repeat the bytes of an earlier one.
        duplicates: rows (group, path, label, part) of all images with the same bytes as another.
        findings: probable mistakes in the data set, one line each.
    """

    name: str
    val_fraction: float
    seed: int
    num_duplicates: int = 0
    duplicates: tuple[tuple[int, str, int, str], ...] = ()
    findings: tuple[str, ...] = ()


class LeftOutError(InputError):
    """More images were skipped than allowed, or all; ``skipped.csv`` lists them."""


class Items:
    """A growing, packed list of images."""

    def __init__(self) -> None:
        self._names = bytearray()
        self._ends = array("Q")
        self._labels = array("i")
        self._stores = array("i")
        self._offsets = array("Q")
        self._sizes = array("Q")

    def add(self, item: Item) -> None:
        """Appends an image."""
        self._names += item.name.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._names))
        self._labels.append(item.label)
        if item.store == WHOLE_FILE and not self._stores:
            return
        self._stores.append(item.store)
        self._offsets.append(item.offset)
        self._sizes.append(item.size)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Item:
        name = self.name_bytes(index).decode("utf-8", "surrogateescape")
        if not self._stores:
            return Item(name, self._labels[index])
        place = self._stores[index], self._offsets[index], self._sizes[index]
        return Item(name, self._labels[index], *place)

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))

    def name_bytes(self, index: int) -> bytes:
        """The name as it is written in the key."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return bytes(self._names[self._ends[index - 1] if index else 0 : self._ends[index]])

    @property
    def labels(self) -> array[int]:
        """Labels of all images; must not be changed."""
        return self._labels

    @property
    def longest_name(self) -> int:
        """Index of the image with the longest name, in bytes."""
        ends = self._ends
        return max(
            range(len(ends)), key=lambda index: ends[index] - (ends[index - 1] if index else 0)
        )

    def packed(self) -> tuple[bytes | bytearray, ...]:
        """All data of the list, for a fingerprint."""
        arrays = (self._ends, self._labels, self._stores, self._offsets, self._sizes)
        return (self._names, *(values.tobytes() for values in arrays))


@dataclass(frozen=True)
class Source:
    """A data set: its images in sorted or listed order, and their classes.

    Attributes:
        root: the folder that names start from, or the archive.
        kind: ``folders``, ``list``, ``ilsvrc``, ``tar``, ``cifar`` or ``idx``.
        items: the images.
        classes: class names by label; empty where a list gives only numbers.
        words: descriptions of the classes, where their names are WordNet IDs.
        stores: files that contain many images: paths, or open files if they were unpacked.
        pixels: layout of the pixels in the stores; None where they contain image files.
        is_validation: a validation set, which is not shuffled by default.
        skipped: files that were found not to be images when the source was listed.
        notes: remarks on the source, one line each.
        part: which part of a divided data set this is; None for a whole one.
    """

    root: Path
    kind: str
    items: Items
    classes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    stores: tuple[Path | BinaryIO, ...] = ()
    pixels: PixelFormat | None = None
    is_validation: bool = False
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    part: SplitPart | None = None


def reason_of(error: OSError) -> str:
    """The reason for skipping a file, in a few words."""
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return GONE
    return (error.strerror or "cannot be opened").lower()
