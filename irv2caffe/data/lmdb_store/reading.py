"""Reading a database, whoever made it."""

from __future__ import annotations

import itertools
import re
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb

from irv2caffe.errors import FormatError, MissingInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBERED_KEY = re.compile(rb"\d{8}(_|$)")
_META = struct.Struct("=IIQQ96xQQ")  # magic, version, address, map size, two trees, last page, txn
_META_MAGIC = 0xBEEFC0DE
_PAGE_HEADER_BYTES = 16
_LARGEST_PAGE = 65_536


@dataclass(frozen=True)
class StoreInfo:
    """Numbers of a database file.

    Attributes:
        num_records: in it.
        size_bytes: of ``data.mdb``.
        map_bytes: that readers map; what the writer said.
        last_transaction: how many commits made it.
    """

    num_records: int
    size_bytes: int
    map_bytes: int
    last_transaction: int


class Reader:
    """A database that somebody made; read-only, without locks, so that any disk will do."""

    def __init__(self, environment: Any, size_bytes: int) -> None:
        self._environment = environment
        self._size_bytes = size_bytes

    def __len__(self) -> int:
        return int(self._environment.stat()["entries"])

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        with self._environment.begin() as transaction:
            yield from transaction.cursor()

    def get(self, key: bytes) -> bytes | None:
        """A record; None where there is none of that key."""
        with self._environment.begin() as transaction:
            value: bytes | None = transaction.get(key)
            return value

    def info(self) -> StoreInfo:
        """Its numbers."""
        map_bytes = _stored_map_bytes(Path(self._environment.path()) / "data.mdb")
        transaction = int(self._environment.info()["last_txnid"])
        return StoreInfo(len(self), self._size_bytes, map_bytes, transaction)

    def views(self) -> Iterator[tuple[memoryview, memoryview]]:
        """Keys and records where they lie on the disk; valid until the next one."""
        with self._environment.begin(buffers=True) as transaction:
            yield from transaction.cursor()

    def sample(self, count: int) -> Iterator[tuple[bytes, bytes]]:
        """Up to ``count`` records spread over the database, without reading it whole.

        Keys that convert_imageset writes begin with the place in the list, so that a place can be
        sought by its key; with other keys one walks from key to key, past the records.
        """
        if count >= len(self):
            yield from self
            return
        if count < 1:
            return
        step = len(self) // count
        with self._environment.begin() as transaction:
            cursor = transaction.cursor()
            is_numbered = cursor.first() and _NUMBERED_KEY.match(cursor.key())
            walk = _seek(cursor, step) if is_numbered else _walk(cursor, step)
            for _ in itertools.islice(walk, count):
                yield cursor.item()


def _seek(cursor: Any, step: int) -> Iterator[None]:
    """Stands at every so-many-eth place, as the keys count them; gaps are stepped over."""
    place, last = 0, b""
    while cursor.set_range(b"%08d" % place):
        if cursor.key() != last:
            last = cursor.key()
            yield
        place += step


def _walk(cursor: Any, step: int) -> Iterator[None]:
    for number, _ in enumerate(cursor.iternext(keys=True, values=False)):
        if number % step == 0:
            yield


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
    file = folder / "data.mdb"
    if not file.is_file():
        hint = "it has no data.mdb"
        if any(folder.glob("*.ldb")) or any(folder.glob("*.sst")):
            hint = "this is a LevelDB; convert_imageset -backend lmdb makes an LMDB"
        raise FormatError("not an LMDB", hint, path=folder)
    size = file.stat().st_size
    try:
        environment = lmdb.open(
            str(folder), readonly=True, lock=False, readahead=False, create=False
        )
    except (lmdb.Error, OSError) as error:
        raise FormatError(
            f"not an LMDB: {error}", "was its writing interrupted?", path=folder
        ) from error
    try:
        _refuse_cut_short(environment, size, folder)
        yield Reader(environment, size)
    except lmdb.Error as error:
        raise FormatError(f"a torn LMDB: {error}", "build it again", path=folder) from error
    finally:
        environment.close()


def _stored_map_bytes(file: Path) -> int:
    """What the writer said; LMDB itself only tells what this process maps.

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


def _refuse_cut_short(environment: Any, size: int, folder: Path) -> None:
    """Reading behind the end of a mapped file would end this process without a word."""
    wanted = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if size < wanted:
        raise FormatError(
            f"data.mdb is cut short: {size:,} of {wanted:,} bytes",
            "is its copy complete?",
            path=folder,
        )
