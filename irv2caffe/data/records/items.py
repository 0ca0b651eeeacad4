"""The images of a data set, packed: a million of them take 80 MB and not ten times as much."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from irv2caffe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

MAX_LABEL = 0x7FFFFFFF  # Datum.label is an int32
MAX_FILE_BYTES = 1 << 30  # of an image file; a larger one is a mistake or hostile
WHOLE_FILE = -1
GONE = "no such file"
# These errors say something of one file or folder; all others say something of the disk.
OF_ONE_FILE = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
    | {errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO}
)


@dataclass(frozen=True, slots=True)
class Item:
    """An image of the data set.

    Attributes:
        name: path below the source folder, or in the archive, with ``/``; part of the key.
        label: of its class, from 0.
        store: number of the file in :attr:`Source.stores` that holds its bytes; ``WHOLE_FILE``
            where it is a file of its own.
        offset: of its bytes there.
        size: of them.
    """

    name: str
    label: int
    store: int = WHOLE_FILE
    offset: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that was left out, and why.

    Attributes:
        name: its path.
        reason: a few words, the same for all of its sort.
        detail: what is special about this one; may be empty.
    """

    name: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How pixels lie in a store that holds no image files.

    Attributes:
        channels: planes of R, G, B, or one of gray.
        height: in pixels.
        width: in pixels.
    """

    channels: int
    height: int
    width: int


class LeftOutError(InputError):
    """More images were left out than may be, or all; ``skipped.csv`` names them."""


class Items(Sequence[Item]):
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

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        name = self.name_bytes(index).decode("utf-8", "surrogateescape")
        if not self._stores:
            return Item(name, self._labels[index])
        return Item(
            name,
            self._labels[index],
            self._stores[index],
            self._offsets[index],
            self._sizes[index],
        )

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))

    def name_bytes(self, index: int) -> bytes:
        """The name as it will stand in the key."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return bytes(self._names[self._ends[index - 1] if index else 0 : self._ends[index]])

    @property
    def labels(self) -> array[int]:
        """Of all images; not to be changed."""
        return self._labels

    @property
    def longest_name(self) -> int:
        """Index of the image with the most bytes in its name."""
        ends = self._ends
        return max(
            range(len(ends)), key=lambda index: ends[index] - (ends[index - 1] if index else 0)
        )

    def packed(self) -> tuple[bytes | bytearray, ...]:
        """All that a fingerprint of the images must cover."""
        arrays = (self._ends, self._labels, self._stores, self._offsets, self._sizes)
        return (self._names, *(values.tobytes() for values in arrays))


@dataclass(frozen=True)
class Source:
    """The images of a data set, in sorted or listed order.

    Attributes:
        root: the folder that names start from, or the archive.
        kind: ``folders``, ``list``, ``ilsvrc``, ``tar``, ``cifar`` or ``idx``.
        items: the images.
        classes: class names by label; empty where a list gave only numbers.
        words: what the classes are called, where their names are only WordNet IDs.
        stores: files that hold many images: paths, or open files where they had to be unpacked.
        pixels: how pixels lie in the stores; None where they hold image files.
        is_validation: shuffling would be of no use.
        skipped: what was found to be no image before any was read.
        notes: what a person should know of it, one line each.
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


def reason_of(error: OSError) -> str:
    """Why a file is left out, in a few words."""
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return GONE
    return (error.strerror or "cannot be opened").lower()
