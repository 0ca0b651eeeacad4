"""Images with the same bytes, found without reading all of them.

Equal images have the same size, so only those of equal size are opened; of these, only those with
the same last 4 KB are read to their end. (Beginnings are alike: cameras write the same headers.)
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.data.records.items import MAX_FILE_BYTES, OF_ONE_FILE, WHOLE_FILE
from irv2caffe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from irv2caffe.data.records.items import Item, Source

    Ints = NDArray[np.int64]

_TAIL_BYTES = 4096
_PIECE_BYTES = 1 << 20
_DIGEST_BYTES = 16
_NOT_A_FILE = -1


def equal_images(
    source: Source, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> list[list[int]]:
    """Groups of two or more images with the same bytes.

    Args:
        source: of the images. Empty and unreadable ones are equal to none.
        progress: called with (images looked at, images to look at).

    Returns:
        Indices of the images of each group, ascending; groups by their first image.

    Raises:
        InputError: the disk fails.
    """
    with ExitStack() as stack:
        reader = _Reader(source, stack)
        sizes = reader.sizes()
        alike = _repeated(sizes[:, None], np.flatnonzero(sizes > 0))
        num = len(alike)
        tails = reader.digests(alike, sizes, _TAIL_BYTES, lambda done: progress(done, num))
        keys = np.zeros((len(sizes), 3), np.int64)
        keys[:, 0] = sizes
        keys[alike, 1:] = tails
        alike = _repeated(keys, _known(alike, tails))
        large = alike[sizes[alike] > _TAIL_BYTES]
        both = num + len(large)
        keys[large, 1:] = reader.digests(
            large, sizes, MAX_FILE_BYTES, lambda done: progress(num + done, both)
        )
        alike = np.setdiff1d(alike, large[~keys[large, 1:].any(axis=1)])
    return sorted(_groups(keys, alike))


class _Reader:
    """Reads parts of the images of a source."""

    def __init__(self, source: Source, stack: ExitStack) -> None:
        self._source = source
        self._root = str(source.root.absolute())
        self._stores = [
            stack.enter_context(store.open("rb")) if isinstance(store, Path) else store
            for store in source.stores
        ]

    def sizes(self) -> Ints:
        """Bytes of each image; ``_NOT_A_FILE`` where it cannot be read."""
        items = self._source.items
        return np.fromiter((self._size(item) for item in items), np.int64, len(items))

    def _size(self, item: Item) -> int:
        if item.store != WHOLE_FILE:
            return item.size
        try:
            status = os.stat(f"{self._root}/{item.name}")  # noqa: PTH116
        except (OSError, ValueError) as error:
            _refuse_lost_disk(error, item)
            return _NOT_A_FILE
        is_image = stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE_BYTES
        return status.st_size if is_image else _NOT_A_FILE

    def digests(
        self, indices: Ints, sizes: Ints, most: int, progress: Callable[[int], None]
    ) -> Ints:
        """Hashes of the last ``most`` bytes of images; zeros where one cannot be read.

        Returns:
            Two numbers for each index.
        """
        found = np.zeros((len(indices), 2), np.int64)
        for place, index in enumerate(indices.tolist()):
            item, size = self._source.items[index], int(sizes[index])
            try:
                with self._opened(item) as descriptor:
                    end = item.offset + size
                    digest = _digest(descriptor, max(item.offset, end - most), end)
            except (OSError, ValueError) as error:
                _refuse_lost_disk(error, item)
                continue
            found[place] = np.frombuffer(digest, np.int64)
            progress(place + 1)
        return found

    @contextmanager
    def _opened(self, item: Item) -> Iterator[int]:
        if item.store != WHOLE_FILE:
            yield self._stores[item.store].fileno()
            return
        # O_NONBLOCK: opening a named pipe would wait for ever.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(f"{self._root}/{item.name}", flags)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            yield descriptor
        finally:
            os.close(descriptor)


def _digest(descriptor: int, start: int, end: int) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    while start < end:
        piece = os.pread(descriptor, min(_PIECE_BYTES, end - start), start)
        if not piece:
            raise OSError(errno.EINVAL, "shorter than it was")
        digest.update(piece)
        start += len(piece)
    return digest.digest()


def _refuse_lost_disk(error: OSError | ValueError, item: Item) -> None:
    """An image that cannot be read is skipped when its record is made; a lost disk is an error."""
    if isinstance(error, OSError) and error.errno not in OF_ONE_FILE:
        raise InputError(
            f"cannot read {item.name}: {error.strerror}",
            "run the same command again when the disk can be read",
        ) from error


def _known(indices: Ints, digests: Ints) -> Ints:
    """The images that could be read."""
    known: Ints = indices[digests.any(axis=1)]
    return known


def _sorted_runs(keys: Ints, indices: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Images in the order of their keys, and for each whether its key is that of the one before."""
    rows = keys[indices]
    order = np.lexsort((indices, *rows.T[::-1]))
    is_same = np.zeros(len(indices), bool)
    is_same[1:] = (rows[order][1:] == rows[order][:-1]).all(axis=1)
    return indices[order], is_same


def _repeated(keys: Ints, indices: Ints) -> Ints:
    """The images whose key another one has too, ascending."""
    images, is_same = _sorted_runs(keys, indices)
    is_first = np.append(is_same[1:], [False])
    repeated: Ints = np.sort(images[is_same | is_first])
    return repeated


def _groups(keys: Ints, indices: Ints) -> list[list[int]]:
    images, is_same = _sorted_runs(keys, indices)
    runs: list[Any] = np.split(images, np.flatnonzero(~is_same)[1:])
    return [run.tolist() for run in runs if len(run) > 1]
