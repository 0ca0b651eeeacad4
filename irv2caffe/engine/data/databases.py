"""Records of an LMDB, in the order of its keys or shuffled."""

from __future__ import annotations

import threading
from array import array
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.data.lmdb_store.reading import DatabaseReader, open_reader
from irv2caffe.engine.data.order import places
from irv2caffe.engine.data.pictures import Picture, Record, decode_datum
from irv2caffe.errors import FormatError, InputError
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from irv2caffe.engine.data.order import Order, Share


class KeyList:
    """Keys in one block of memory: a million of 40 bytes take 48 MB."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._bytes = bytearray()
        self._ends = array("Q", [0])
        for key in keys:
            self._bytes += key
            self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> bytes:
        return bytes(self._bytes[self._ends[place] : self._ends[place + 1]])


_lock = threading.Lock()
_readers: dict[Path, tuple[DatabaseReader, ExitStack, int]] = {}


@contextmanager
def _shared_reader(path: Path) -> Iterator[DatabaseReader]:
    """Opens a database, once for all layers that read it: LMDB opens none twice in a process."""
    place = path.resolve()
    with _lock:
        if place in _readers:
            reader, closing, num_users = _readers[place]
        else:
            closing, num_users = ExitStack(), 0
            reader = closing.enter_context(open_reader(path, readahead=True))
        _readers[place] = (reader, closing, num_users + 1)
    try:
        yield reader
    finally:
        with _lock:
            reader, closing, num_users = _readers.pop(place)
            if num_users > 1:
                _readers[place] = (reader, closing, num_users - 1)
            else:
                closing.close()


class DatabaseRecords:
    """The records that a Data layer reads.

    Attributes:
        path: of the database.
    """

    def __init__(self, layer: Any) -> None:
        """Opens the database of a Data layer.

        Raises:
            InputError: a LevelDB, a missing or damaged database, or an empty one.
        """
        param = layer.data_param
        self.path = Path(param.source)
        self._transform = layer.transform_param
        if param.backend != messages.DataParameter.LMDB:
            raise InputError(
                f"layer {layer.name!r}: cannot open {self.path} as a LevelDB, Caffe's default",
                "write backend: LMDB; the torch engine reads no LevelDB",
            )
        self._open = ExitStack()
        self._reader = self._open.enter_context(_shared_reader(self.path))
        if not len(self._reader):
            self.close()
            raise FormatError("a database without records", path=self.path)

    def __len__(self) -> int:
        return len(self._reader)

    def records(
        self, share: Share, order: Order | None, wrapped: Callable[[], None]
    ) -> Generator[Record]:
        """The records of a process, without end.

        Args:
            share: of the process.
            order: of the epochs; None for that of the keys.
            wrapped: called after the last record.
        """
        if order is not None:
            yield from self._ordered(share, order)
            return
        offset = 0
        while True:
            for key, value in self._reader.views():
                if share.has(offset):
                    yield Record(bytes(key), value)
                offset += 1
            wrapped()

    def _ordered(self, share: Share, order: Order) -> Generator[Record]:
        keys = KeyList(self._reader.keys())
        with self._reader.lookup() as find:
            for place in places(len(keys), share, order):
                value = find(keys[place])
                if value is None:
                    raise FormatError("it has lost a key; is it being written?", path=self.path)
                yield Record(keys[place], value)

    def decode(self, record: Record) -> Picture:
        """Decodes a record.

        Raises:
            ValueError: it is corrupt.
        """
        param = self._transform
        return decode_datum(
            record.value, force_color=param.force_color, force_gray=param.force_gray
        )

    def close(self) -> None:
        """Closes the database; records become invalid."""
        self._open.close()
