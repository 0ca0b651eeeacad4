"""Images for a net: from databases, folders, lists, archives and single files."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.data.inspect.database import read_database
from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.records.database_files import RECORDS
from irv2caffe.data.records.datum import read_head
from irv2caffe.data.records.decode import stored_pixels
from irv2caffe.data.records.items import WHOLE_FILE, Item, Skipped, Source
from irv2caffe.errors import FormatError, InputError, MissingInputError
from irv2caffe.inference.listing import NO_LABEL, list_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from irv2caffe.data.lmdb_store import DatabaseReader
    from irv2caffe.data.records.datum import DatumHead
    from irv2caffe.inference.model import Model


@dataclass(frozen=True)
class Image:
    """An image for a net.

    Attributes:
        name: path below the source, or the key of the record.
        label: number of its class; None where it is not known.
        pixels: height x width x channels in B, G, R, or height x width; uint8, or float32 for
            records of floats; of the stored size.
    """

    name: str
    label: int | None
    pixels: NDArray[Any]


@dataclass(frozen=True)
class _Entry:
    """An image that has not been read."""

    name: str
    label: int | None
    read: Callable[[], NDArray[Any]]


class Images:
    """Images to be read one after the other, as often as wanted.

    Attributes:
        source: where they come from.
        notes: remarks on the source, one line each.
        skipped: those that could not be read in the last pass, with the reason.
    """

    def __init__(self, source: Path, notes: tuple[str, ...] = ()) -> None:
        self.source = source
        self.notes = notes
        self.skipped: list[Skipped] = []
        self._only: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """The number of images, those that cannot be read included."""
        return self._count() if self._only is None else len(self._only)

    def names(self) -> list[str]:
        """The names of all images, in their order; no image is read."""
        raise NotImplementedError

    def only(self, names: Sequence[str]) -> Images:
        """The same source with some of its images, in the order of ``names``."""
        chosen = copy(self)
        chosen._only = tuple(names)  # noqa: SLF001
        chosen.skipped = []
        return chosen

    def choose(self, limit: int, seed: int, *, block: int = 1) -> list[str]:
        """The names of some images, chosen at random, in their order.

        Args:
            limit: how many; fewer than there are.
            seed: of the choice.
            block: choose blocks of so many neighbours, which meet in a batch.
        """
        names = self.names()
        places = np.random.default_rng(seed).permutation(max(1, len(names) // block))
        starts = sorted(places[: max(1, limit // block)].tolist())
        return [name for at in starts for name in names[at * block : (at + 1) * block]]

    def __iter__(self) -> Iterator[Image]:
        self.skipped = []
        for outcome in self.outcomes():
            if isinstance(outcome, Skipped):
                self.skipped.append(outcome)
            else:
                yield outcome

    def shown_name(self, name: str) -> str:
        """The name of an image for the user: a path where it is a file of its own."""
        return name

    def outcomes(self) -> Iterator[Image | Skipped]:
        """All images in their order, and those that cannot be read with the reason."""
        for entry in self._entries():
            if isinstance(entry, Skipped):
                yield entry
                continue
            try:
                pixels = entry.read()
            except ValueError as error:
                reason = getattr(error, "reason", "") or str(error)
                yield Skipped(entry.name, reason, getattr(error, "detail", ""))
            else:
                yield Image(entry.name, entry.label, pixels)

    def _count(self) -> int:
        raise NotImplementedError

    def _entries(self) -> Iterator[_Entry | Skipped]:
        raise NotImplementedError


def read_images(
    source: Path, model: Model, *, list_file: Path | None = None, whole: bool = False
) -> Images:
    """The images of a source, at the stored size of a model.

    Labels are known for a database, a list and data sets; for a folder where its folders are
    called as the model's classes.

    Args:
        source: a database, an image, a folder, or another source of make-lmdb.
        model: the model that is to see them.
        list_file: lines of ``PATH LABEL``, whose paths start from ``source``.
        whole: do not resize them, for 144 crops.

    Raises:
        MissingInputError: no such file or folder.
        FormatError: a damaged database; a malformed list.
        InputError: no images.
    """
    if not source.exists():
        raise MissingInputError(f"{source}: no such file or folder", "check the path")
    if list_file is None and (source / RECORDS).exists():
        return _Records(source, model)
    return _Files(list_images(source, model, list_file), model, whole=whole)


class _Records(Images):
    """The records of a database, in the order in which Caffe reads them."""

    def __init__(self, folder: Path, model: Model) -> None:
        # In a process of its own, as far as it is read there: a damaged one may end the reader.
        found = read_database(folder, is_quick=False)
        super().__init__(folder)
        self._channels = model.preprocessing.channels
        self._num = found.num_records or 0

    def _count(self) -> int:
        return self._num

    def names(self) -> list[str]:
        with open_reader(self.source) as reader:
            keys = reader.keys()
            return [key.decode("utf-8", "surrogateescape") for key in keys]

    def _records(self, reader: DatabaseReader) -> Iterator[tuple[bytes, bytes]]:
        if self._only is None:
            yield from reader
            return
        for name in self._only:
            key = name.encode("utf-8", "surrogateescape")
            value = reader.get(key)
            if value is not None:
                yield key, value

    def _entries(self) -> Iterator[_Entry | Skipped]:
        with open_reader(self.source) as reader:
            for key, value in self._records(reader):
                name = key.decode("utf-8", "surrogateescape")
                try:
                    head = read_head(value)
                except FormatError as error:
                    yield Skipped(name, error.message)
                    continue
                yield _Entry(name, head.label or 0, partial(self._pixels, value, head))

    def _pixels(self, value: bytes, head: DatumHead) -> NDArray[Any]:
        pixels = stored_pixels(value)
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        if not head.is_encoded or channels == self._channels:
            return pixels
        from irv2caffe.data.records.image import open_image

        start, size = head.data  # as with force_gray and force_color
        return open_image(bytes(value[start : start + size])).decode(gray=self._channels == 1)


class _Files(Images):
    """Image files, whole or in archives."""

    def __init__(self, listed: Source, model: Model, *, whole: bool) -> None:
        super().__init__(listed.root, listed.notes)
        self._listed = listed
        self._made = model.preprocessing
        self._whole = whole

    def _count(self) -> int:
        return len(self._listed.items) + len(self._listed.skipped)

    def shown_name(self, name: str) -> str:
        """The path of an image, which may lie in an archive."""
        return str(self._listed.root / name)

    def names(self) -> list[str]:
        return [item.name for item in self._listed.items]

    def _chosen(self) -> Iterator[Item]:
        items = self._listed.items
        if self._only is None:
            yield from items
            return
        places = {item.name: place for place, item in enumerate(items)}
        yield from (items[places[name]] for name in self._only if name in places)

    def _entries(self) -> Iterator[_Entry | Skipped]:
        yield from self._listed.skipped if self._only is None else ()
        with ExitStack() as stack:
            stores = [
                stack.enter_context(store.open("rb")) if isinstance(store, Path) else store
                for store in self._listed.stores
            ]
            for item in self._chosen():
                label = None if item.label == NO_LABEL else item.label
                yield _Entry(item.name, label, partial(self._pixels, item, stores))

    def _pixels(self, item: Item, stores: list[Any]) -> NDArray[Any]:
        from irv2caffe.data.records.image import from_planes, open_image, resize
        from irv2caffe.data.records.record import read_file

        gray = self._made.channels == 1
        if item.store == WHOLE_FILE:
            data = read_file(f"{self._listed.root}/{item.name}")
        else:
            data = os.pread(stores[item.store].fileno(), item.size, item.offset)
            if len(data) < item.size:
                raise InputError(f"{self._listed.root} ends before {item.name}")
        if self._listed.pixels is not None:
            pixels = from_planes(data, self._listed.pixels, gray=gray)
        else:
            pixels = open_image(data).decode(gray=gray)
        size = self._made.resized_to
        if size is None or self._whole:
            return pixels
        return resize(pixels, (size[1], size[0]), self._made.resize, self._made.interpolation)


def reasons(skipped: list[Skipped]) -> Counter[str]:
    """How many images were skipped for each reason."""
    return Counter(skip.reason for skip in skipped)
