"""Reads the sorted tables that TensorFlow's checkpoints consist of; the format is LevelDB's.

A footer locates the index block, which locates the data blocks. A block is a list of keys and
values, in which a key leaves out the prefix it shares with the one before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from irv2caffe.errors import FormatError
from irv2caffe.proto.wire import read_varint
from irv2caffe.weights.files.extras import needed
from irv2caffe.weights.files.values import named

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOOTER_BYTES = 48
MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_BROKEN = "a broken checkpoint: "
_TRAILER_BYTES = 5  # the kind of compression, and the checksum of block and kind
_UNCOMPRESSED, _SNAPPY = 0, 1
_MAX_ENTRIES = 1_000_000
_MAX_KEY_BYTES = 64  # of all keys together, for each byte of the file
_MAX_SNAPPY_RATIO = 22  # a copy of 64 bytes takes 3


class Handle(NamedTuple):
    """The position of a block in the file."""

    place: int
    size: int


class ValueLocation(NamedTuple):
    """The position of a value in the uncompressed content of a block."""

    block: Handle
    place: int
    size: int


class SortedTable:
    """A table in memory or mapped into it; blocks are read when they are needed."""

    def __init__(self, data: memoryview, path: Path) -> None:
        """Reads the footer.

        Raises:
            FormatError: not a table.
        """
        self._data = data
        self._path = path
        self._last: tuple[Handle, bool, memoryview] | None = None
        footer = data[-FOOTER_BYTES:]
        if len(footer) < FOOTER_BYTES or footer[-8:] != MAGIC:
            raise FormatError("not a TensorFlow checkpoint", "is it cut short?", path=path)
        with named(path, _BROKEN):
            _, place = _handle(footer, 0)  # of the meta index, which is empty
            self._index, _ = _handle(footer, place)

    def entries(self) -> Iterator[tuple[bytes, ValueLocation]]:
        """All keys in order, with the locations of their values.

        Raises:
            FormatError: a broken block.
        """
        with named(self._path, _BROKEN):
            index, last, room = self._content(self._index), b"", _MAX_KEY_BYTES * len(self._data)
            end = number = 0
            for _, entry in _entries(self._index, index):
                block, _ = _handle(index[entry.place :], 0)
                if block.place < end:
                    raise FormatError("its blocks do not follow each other")
                end = block.place + block.size
                for key, where in _entries(block, self._content(block)):
                    number, room = number + 1, room - len(key)
                    if (number > 1 and key <= last) or number > _MAX_ENTRIES or room < 0:
                        raise FormatError("its keys are not in order, or too many")
                    last = key
                    yield key, where

    def value(self, where: ValueLocation) -> memoryview:
        """A value, after comparing the checksum of its block.

        Raises:
            FormatError: a broken block.
        """
        with named(self._path, _BROKEN):
            content = self._content(where.block, check=True)
        return content[where.place : where.place + where.size]

    def _content(self, block: Handle, *, check: bool = False) -> memoryview:
        if self._last is not None and self._last[0] == block and self._last[1] >= check:
            return self._last[2]
        end = block.place + block.size
        if end + _TRAILER_BYTES > len(self._data):
            raise FormatError("a block lies outside of the file")
        content, kind = self._data[block.place : end], self._data[end]
        stored = int.from_bytes(self._data[end + 1 : end + _TRAILER_BYTES], "little")
        if check and masked_crc32c(self._data[block.place : end + 1]) != stored:
            raise FormatError("a block does not have its checksum")
        if kind == _SNAPPY:
            content = memoryview(decompress_snappy(content))
        elif kind != _UNCOMPRESSED:
            raise FormatError(f"a block has the unknown compression {kind}")
        self._last = (block, check, content)
        return content


def masked_crc32c(data: bytes | memoryview) -> int:
    """The CRC-32C of ``data`` in the form that TensorFlow stores.

    Raises:
        MissingExtraError: the package that computes it is not installed.
    """
    with needed("google-crc32c", "reading a TensorFlow checkpoint"):
        import google_crc32c
    checksum = int(google_crc32c.value(bytes(data)))
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def decompress_snappy(data: memoryview) -> bytes:
    """The content of a Snappy block, as some versions of TensorFlow write them.

    Raises:
        MissingExtraError: the package that decompresses it is not installed.
        FormatError: not such a block, or one that declares more than it can hold.
    """
    with needed("cramjam", "reading a compressed TensorFlow checkpoint"):
        import cramjam
    size, _ = read_varint(data, 0)
    if size > _MAX_SNAPPY_RATIO * len(data):
        raise FormatError("a compressed block that says more than it can hold")
    try:
        return bytes(cramjam.snappy.decompress_raw(data))
    except cramjam.DecompressionError as error:
        raise FormatError("a compressed block that is damaged") from error


def _handle(data: memoryview, place: int) -> tuple[Handle, int]:
    start, place = read_varint(data, place)
    size, place = read_varint(data, place)
    return Handle(start, size), place


def _entries(block: Handle, content: memoryview) -> Iterator[tuple[bytes, ValueLocation]]:
    """Keys and values of a block, which ends in a list of the places of complete keys."""
    num_restarts = int.from_bytes(content[-4:], "little")
    end = len(content) - 4 * (num_restarts + 1)
    if len(content) < 4 or end < 0:
        raise FormatError("a block is too short for its own index")
    place, key = 0, b""
    while place < end:
        shared, place = read_varint(content, place)
        rest, place = read_varint(content, place)
        size, place = read_varint(content, place)
        if shared > len(key) or place + rest + size > end:
            raise FormatError("a block has an impossible entry")
        key = key[:shared] + content[place : place + rest].tobytes()
        place += rest
        yield key, ValueLocation(block, place, size)
        place += size
