"""Reader for LMDB databases, also for damaged ones and those of other programs."""

from __future__ import annotations

import itertools
import re
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb

from irv2caffe.errors import FormatError, InputError, MissingInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NUMBERED_KEY = re.compile(rb"(\d{8})(?:_|$)")
_META = struct.Struct("=IIQQ96xQQ")  # magic, version, address, map size, two trees, last page, txn
_META_MAGIC = 0xBEEFC0DE
_PAGE_HEADER_BYTES = 16
_LARGEST_PAGE = 65_536
_LEAST_RECORD_BYTES = 10  # its header and its offset in the page (MDB_node in mdb.c)
_REBUILD_HINT = "copy it again, or build it again"
_TOO_MANY = "it holds more than the {:,} records that it says"
_TOO_FEW = "it holds {:,} of the {:,} records that it says"


@dataclass(frozen=True)
class StoreInfo:
    """Numbers of a database file.

    Attributes:
        num_records: number of records.
        size_bytes: of ``data.mdb``.
        map_bytes: map size that the writer stored.
        last_transaction: number of the last commit.
    """

    num_records: int
    size_bytes: int
    map_bytes: int
    last_transaction: int


class DatabaseReader:
    """A database opened read-only and without locks, so that it may be on any disk.

    A page of a damaged database may name any page as the next one. The number of records and the
    order of their keys are checked while reading, so that reading always ends.
    """

    def __init__(self, folder: Path, environment: Any, size_bytes: int) -> None:
        self._folder = folder
        self._environment = environment
        self._size_bytes = size_bytes

    def __len__(self) -> int:
        return int(self._environment.stat()["entries"])

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self._all(buffers=False)

    def get(self, key: bytes) -> bytes | None:
        """The record of a key; None where there is none."""
        with self._transaction(buffers=False) as transaction:
            value: bytes | None = transaction.get(key)
            return value

    def info(self) -> StoreInfo:
        """Numbers of the database file."""
        map_bytes = _stored_map_bytes(Path(self._environment.path()) / "data.mdb")
        transaction = int(self._environment.info()["last_txnid"])
        return StoreInfo(len(self), self._size_bytes, map_bytes, transaction)

    def views(self) -> Iterator[tuple[memoryview, memoryview]]:
        """Keys and records in the mapped file; valid until the next one."""
        return self._all(buffers=True)

    def keys(self) -> Iterator[bytes]:
        """All keys in order; the records are not loaded from the disk."""
        number, expected = 0, len(self)
        with self._transaction(buffers=False) as transaction:
            keys = transaction.cursor().iternext(keys=True, values=False)
            for number, key in enumerate(keys, 1):
                if number > expected:
                    raise self._damaged(_TOO_MANY.format(expected))
                yield key
        if number < expected:
            raise self._damaged(_TOO_FEW.format(number, expected))

    @contextmanager
    def lookup(self) -> Iterator[Callable[[bytes], memoryview | None]]:
        """Gives a function from a key to its record in the mapped file, None where there is none.

        The records stay valid as long as the database is open.
        """
        with self._transaction(buffers=True) as transaction:
            yield transaction.get

    def sample(self, count: int, *, views: bool = False) -> Iterator[tuple[Any, Any]]:
        """Up to ``count`` records spread over the database, without reading it whole.

        Keys of convert_imageset begin with the index in the list, so that a record can be found by
        its index; with other keys all keys are read, but not the records.

        Args:
            count: maximum number of records.
            views: whether to yield memory views, as :meth:`views` does.
        """
        if count >= len(self):
            yield from self._all(buffers=views)
            return
        if count < 1:
            return
        with self._transaction(buffers=views) as transaction:
            cursor = transaction.cursor()
            places = _num_places(cursor)
            # A few images may have been skipped; numbers that are dates are not indices.
            is_numbered = len(self) <= places < 2 * len(self)
            step = (places if is_numbered else len(self)) // count
            walk = self._seek(cursor, step) if is_numbered else _walk(cursor, step)
            for _ in itertools.islice(walk, count):
                yield cursor.item()

    def _all(self, *, buffers: bool) -> Iterator[tuple[Any, Any]]:
        expected, number = len(self), 0
        with self._transaction(buffers=buffers) as transaction:
            for number, record in enumerate(transaction.cursor(), 1):
                if number > expected:
                    raise self._damaged(_TOO_MANY.format(expected))
                yield record
        if number < expected:
            raise self._damaged(_TOO_FEW.format(number, expected))

    @contextmanager
    def _transaction(self, *, buffers: bool) -> Iterator[Any]:
        try:
            with self._environment.begin(buffers=buffers) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise self._damaged(str(error)) from error

    def _seek(self, cursor: Any, step: int) -> Iterator[None]:
        """Moves to every ``step``-th index in the keys; missing ones are skipped."""
        place, last = 0, b""
        while cursor.set_range(b"%08d" % place):
            key = bytes(cursor.key())
            found = _NUMBERED_KEY.match(key)
            if key <= last or found is None:
                raise self._damaged(f"behind the key {_shown(last)} comes {_shown(key)}")
            yield
            last = key
            place = max(place, int(found[1])) + step

    def _damaged(self, how: str) -> FormatError:
        return FormatError(f"data.mdb is damaged: {how}", _REBUILD_HINT, path=self._folder)


def _shown(key: bytes) -> str:
    return repr(key[:60].decode("utf-8", "replace"))


def _num_places(cursor: Any) -> int:
    """The number that the last key begins with, plus one; 0 where keys begin with no number."""
    found = None
    for move in (cursor.first, cursor.last):
        found = _NUMBERED_KEY.match(bytes(cursor.key())) if move() else None
        if found is None:
            return 0
    return int(found[1]) + 1 if found is not None else 0


def _walk(cursor: Any, step: int) -> Iterator[None]:
    cursor.first()
    for number, _ in enumerate(cursor.iternext(keys=True, values=False)):
        if number % step == 0:
            yield


@contextmanager
def open_reader(folder: Path, *, readahead: bool = False) -> Iterator[DatabaseReader]:
    """Opens the database in ``folder``.

    Args:
        folder: of the database.
        readahead: the system reads ahead of each access; for whole records from a slow disk.

    Raises:
        InputError: ``folder`` is a file.
        MissingInputError: it does not exist.
        FormatError: not an LMDB, or a damaged one.
    """
    if folder.is_file():
        inside = folder.name in {"data.mdb", "lock.mdb"}
        raise InputError(
            f"{folder} is a file; a database is named by its folder",
            f"give {folder.parent}" if inside else "",
        )
    if not folder.is_dir():
        raise MissingInputError(
            f"{folder}: no such database", "build it with: irv2caffe make-lmdb SOURCE OUT"
        )
    file = folder / "data.mdb"
    if not file.is_file():
        hint = "it has no data.mdb"
        if any(folder.glob("*.ldb")) or any(folder.glob("*.sst")):
            hint = "this is a LevelDB; convert_imageset -backend lmdb makes an LMDB"
        raise FormatError("not an LMDB", hint, path=folder)
    size = file.stat().st_size
    try:
        environment = lmdb.open(
            str(folder), readonly=True, lock=False, readahead=readahead, create=False
        )
    except (lmdb.Error, OSError) as error:
        raise FormatError(
            f"not an LMDB: {error}", "was its writing interrupted?", path=folder
        ) from error
    try:
        _check_size(environment, size, folder)
        yield DatabaseReader(folder, environment, size)
    finally:
        environment.close()


def _stored_map_bytes(file: Path) -> int:
    """The map size that the writer stored; LMDB itself only gives that of this process.

    From the newer of the two meta pages (MDB_meta in mdb.c of LMDB 0.9).
    """
    newest = (0, 0)
    with file.open("rb") as stream:
        page = stream.read(2 * _LARGEST_PAGE)
    for size in (4096, 8192, 16_384, 32_768, _LARGEST_PAGE):
        metas = [
            _META.unpack_from(page, at + _PAGE_HEADER_BYTES)
            for at in (0, size)
            if len(page) >= at + _PAGE_HEADER_BYTES + _META.size
        ]
        if len(metas) == 2 and all(meta[0] == _META_MAGIC for meta in metas):
            newest = max((int(meta[-1]), int(meta[3])) for meta in metas)
            break
    return newest[1]


def _check_size(environment: Any, size: int, folder: Path) -> None:
    """Refuses a truncated file: reading past the end of a mapped file kills the process."""
    wanted = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if size < wanted:
        raise FormatError(
            f"data.mdb is cut short: {size:,} of {wanted:,} bytes",
            "is its copy complete?",
            path=folder,
        )
    expected = environment.stat()["entries"]
    if expected * _LEAST_RECORD_BYTES > size:
        how = f"it says {expected:,} records, its {size:,} bytes cannot hold them"
        raise FormatError(f"data.mdb is damaged: {how}", _REBUILD_HINT, path=folder)
