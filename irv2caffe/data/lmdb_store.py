"""Ordered batched writing and reading of databases: the only module that imports lmdb."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lmdb

from irv2caffe.errors import FormatError, MissingInputError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FIRST_MAP_BYTES = 64 << 20
_BATCH_BYTES = 64 << 20


class Writer:
    """Appends records in the order of their keys, many to a transaction.

    The map doubles when it is full, as Caffe's does (db_lmdb.cpp), since LMDB wants to be told
    the size beforehand.
    """

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._batch: list[tuple[bytes, bytes]] = []
        self._batch_bytes = 0

    def put(self, key: bytes, value: bytes) -> None:
        """Adds a record; its key must sort after the last one."""
        self._batch.append((key, value))
        self._batch_bytes += len(value)
        if self._batch_bytes >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what was added since.

        Raises:
            OutputError: the disk is full or fails.
        """
        while self._batch:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._batch:
                        if not transaction.put(key, value, append=True):
                            raise OutputError(f"two records have the key {key!r}")
                self._batch.clear()
                self._batch_bytes = 0
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as error:
                raise OutputError(
                    f"the database cannot be written: {error}", "is the disk full?"
                ) from error


@contextmanager
def open_writer(folder: Path) -> Iterator[Writer]:
    """A new database in ``folder``; complete when the block ends well.

    Raises:
        OutputError: the folder cannot hold one.
    """
    try:
        environment = lmdb.open(
            str(folder), map_size=_FIRST_MAP_BYTES, readahead=False, meminit=False, mode=0o644
        )
    except (lmdb.Error, OSError) as error:
        raise OutputError(f"cannot make a database in {folder}: {error}") from error
    try:
        writer = Writer(environment)
        yield writer
        writer.flush()
        environment.sync(True)
    finally:
        environment.close()


class Reader:
    """A database that somebody made; read-only, without locks, so that any disk will do."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment

    def __len__(self) -> int:
        return int(self._environment.stat()["entries"])

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        with self._environment.begin() as transaction:
            yield from transaction.cursor()

    def sample(self, count: int) -> Iterator[tuple[bytes, bytes]]:
        """Up to ``count`` records spread over the database, without reading it whole.

        Keys that Caffe's tools write begin with the place in the list, so that a place can be
        sought by its key; other keys give the first records.
        """
        step = max(1, len(self) // count)
        with self._environment.begin() as transaction:
            cursor = transaction.cursor()
            seen: set[bytes] = set()
            for place in range(0, len(self), step):
                found = cursor.set_range(b"%08d" % place) if place else cursor.first()
                if found and cursor.key() not in seen:
                    seen.add(cursor.key())
                    yield cursor.item()


@contextmanager
def open_reader(folder: Path) -> Iterator[Reader]:
    """The database in ``folder``.

    Raises:
        MissingInputError: no such folder.
        FormatError: no LMDB, or a torn one.
    """
    if not folder.is_dir():
        raise MissingInputError(
            f"{folder}: no such database", "build it with: irv2caffe make-lmdb SOURCE OUT"
        )
    if not (folder / "data.mdb").is_file():
        hint = "it has no data.mdb"
        if any(folder.glob("*.ldb")) or any(folder.glob("*.sst")):
            hint = "this is a LevelDB; convert_imageset -backend lmdb makes an LMDB"
        raise FormatError("not an LMDB", hint, path=folder)
    try:
        environment = lmdb.open(
            str(folder), readonly=True, lock=False, readahead=False, create=False
        )
    except lmdb.Error as error:
        raise FormatError(
            f"not an LMDB: {error}", "was its writing interrupted?", path=folder
        ) from error
    try:
        yield Reader(environment)
    except lmdb.Error as error:
        raise FormatError(f"a torn LMDB: {error}", "build it again", path=folder) from error
    finally:
        environment.close()
