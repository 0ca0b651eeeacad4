"""Writer for LMDB databases that can be continued after a crash at any moment."""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import lmdb

from irv2caffe.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_META_PAGES = 2
_EMPTY_BYTES = _META_PAGES * mmap.PAGESIZE
_ROOM_BYTES = 512 << 20
_SMALLEST_MAP_BYTES = 1 << 30
_PAGE_HEADER_BYTES = 16
# MDB_txninfo and the table of 126 readers, as mdb_env_setup_locks makes it.
_LOCK_BYTES = 8192
# MDB_meta in mdb.c of LMDB 0.9: skipped fields, the last page, the transaction.
_META = struct.Struct("=120xQQ")


class DatabaseWriter:
    """Appends records in the order of their keys, many per transaction.

    Every transaction gets an environment of its own. Within one, LMDB reuses buffers without
    clearing them, so that unused bytes of the file would depend on earlier work of the process.
    This way the file depends only on the records and on where the transactions end: a build that
    is killed and resumed ends with the same bytes as one that is not.
    """

    def __init__(self, folder: Path, room_bytes: int = _ROOM_BYTES) -> None:
        """Opens a folder that is empty, or holds the database of an earlier writer.

        Args:
            folder: of the database.
            room_bytes: map size to reserve for one transaction; more than any needs.

        Raises:
            OutputError: the folder cannot be written, or its database is damaged.
        """
        self._folder = folder
        self._room_bytes = room_bytes
        self._transaction: Any = None
        self._environment: Any = None
        with self._as_output_error():
            self._remove_uncommitted()

    def __enter__(self) -> DatabaseWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Commits when the block ends without an exception."""
        try:
            if kind is None:
                self.commit()
        finally:
            self.close()

    def put(self, key: bytes, value: bytes | memoryview) -> None:
        """Adds a record; its key must sort after the last one.

        Raises:
            OutputError: the disk is full or fails.
        """
        with self._as_output_error():
            self._begin()
            if not self._transaction.put(key, value, append=True):
                raise OutputError(f"the key {key!r} does not sort after the last one")

    def commit(self) -> None:
        """Commits the records since the last commit, so that they survive a power cut.

        Raises:
            OutputError: the disk is full or fails.
        """
        with self._as_output_error():
            self._begin()
            self._transaction.commit()
            self._close()

    @property
    def transaction(self) -> int:
        """The number of the transaction that the next commit ends; 0 if it is empty."""
        return 0 if self._transaction is None else int(self._transaction.id())

    def _begin(self) -> None:
        if self._transaction is None:
            self._environment = self._open()
            self._transaction = self._environment.begin(write=True)

    def close(self) -> None:
        """Closes the database without the records since the last commit."""
        if self._transaction is not None:
            self._transaction.abort()
        self._close()

    def _close(self) -> None:
        if self._environment is not None:
            self._environment.close()
        self._environment = self._transaction = None

    def _open(self) -> Any:
        """Opens it with a map size that has room for one more transaction: a power of two.

        LMDB needs the size beforehand; Caffe doubles it and writes its batch again (db_lmdb.cpp).
        """
        used = self._file.stat().st_size if self._file.exists() else 0
        if used <= _EMPTY_BYTES:
            used = 0  # the same size, whether an earlier process had just begun or not
        map_bytes = _SMALLEST_MAP_BYTES
        while map_bytes < used + self._room_bytes:
            map_bytes *= 2
        self._fill_lock_file()
        return lmdb.open(
            str(self._folder), map_size=map_bytes, readahead=False, meminit=True, mode=0o644
        )

    def _fill_lock_file(self) -> None:
        """Allocates the lock file on the disk; LMDB only sets its length, then maps it.

        Touching a page for which the disk has no room kills the process with SIGBUS.
        """
        with (self._folder / "lock.mdb").open("ab") as stream:
            stream.write(bytes(max(0, _LOCK_BYTES - stream.tell())))

    @property
    def _file(self) -> Path:
        return self._folder / "data.mdb"

    def _remove_uncommitted(self) -> None:
        """Truncates pages of a transaction that was never committed."""
        if not self._file.exists():
            return
        if self._file.stat().st_size < _EMPTY_BYTES:
            self._file.unlink()  # not even both meta pages
            return
        last = _last_commit(self._folder)
        other = 1 - last.meta
        with self._file.open("r+b") as stream:
            stream.seek(last.meta * mmap.PAGESIZE + _PAGE_HEADER_BYTES)
            meta = stream.read(_META.size)
            stream.seek(other * mmap.PAGESIZE + _PAGE_HEADER_BYTES)
            if _META.unpack(stream.read(_META.size))[1] > last.transaction:
                stream.seek(other * mmap.PAGESIZE + _PAGE_HEADER_BYTES)
                stream.write(meta)  # its pages never reached the disk
            stream.truncate(last.num_bytes)

    @contextmanager
    def _as_output_error(self) -> Iterator[None]:
        try:
            yield
        except (lmdb.Error, OSError) as error:
            self._transaction = None
            self._close()
            if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError)):
                raise _damaged(self._folder, str(error)) from error
            raise OutputError(
                f"the database in {self._folder} cannot be written: {error}",
                "is the disk full? the same command goes on from here",
            ) from error


def last_transaction(folder: Path) -> int:
    """The number of the last committed transaction; 0 where there is none.

    Raises:
        OutputError: it is not a database, or a truncated one.
    """
    file = folder / "data.mdb"
    if not file.exists() or file.stat().st_size < _EMPTY_BYTES:
        return 0
    return _last_commit(folder).transaction


class _Commit(NamedTuple):
    transaction: int
    num_bytes: int
    meta: int


def _last_commit(folder: Path) -> _Commit:
    """The last transaction whose pages are all in the file.

    The two meta pages describe the last two. A disk may have kept a meta page and lost the pages
    of its transaction; reading past the end of the file would kill this process.
    """
    file = folder / "data.mdb"
    try:
        lmdb.open(str(folder), readonly=True, lock=False, create=False).close()
        with file.open("rb") as stream:
            start = stream.read(_EMPTY_BYTES)
            size = stream.seek(0, os.SEEK_END)
    except (lmdb.Error, OSError) as error:
        raise _damaged(folder, str(error)) from error
    commits = []
    for meta in range(_META_PAGES):
        last_page, transaction = _META.unpack_from(start, meta * mmap.PAGESIZE + _PAGE_HEADER_BYTES)
        num_pages = max(_META_PAGES, last_page + 1)
        commits.append(_Commit(transaction, num_pages * mmap.PAGESIZE, meta))
    whole = [commit for commit in commits if commit.num_bytes <= size]
    if not whole:
        wanted = min(commit.num_bytes for commit in commits)
        raise _damaged(folder, f"{size:,} of {wanted:,} bytes are left")
    return max(whole)


def _damaged(folder: Path, why: str) -> OutputError:
    return OutputError(
        f"the unfinished database in {folder} is damaged: {why}", "--no-resume starts over"
    )
