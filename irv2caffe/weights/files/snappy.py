"""Snappy, which some versions of TensorFlow compress the blocks of a checkpoint with."""

from __future__ import annotations

from irv2caffe.errors import FormatError
from irv2caffe.proto.wire import read_varint

_COPY_BYTES = {1: 2, 2: 3, 3: 5}
_MOST_BYTES_PER_BYTE = 22  # a copy of 64 bytes takes 3


def decompress(data: memoryview) -> bytes:
    """The content of a raw Snappy block.

    Raises:
        FormatError: not such a block.
    """
    size, place = read_varint(data, 0)
    if size > _MOST_BYTES_PER_BYTE * len(data):
        raise FormatError("a compressed block that says more than it can hold")
    out = bytearray()
    while place < len(data) and len(out) <= size:
        kind = data[place] & 3
        if kind == 0:
            length, place = _literal_length(data, place)
            out += data[place : place + length]
            place += length
            continue
        length, offset = _copy(data, place, kind)
        if not 0 < offset <= len(out):
            raise FormatError("a compressed block that repeats what it does not have")
        _repeat(out, offset, length)
        place += _COPY_BYTES[kind]
    if len(out) != size:
        raise FormatError("a compressed block of another size than it says")
    return bytes(out)


def _literal_length(data: memoryview, place: int) -> tuple[int, int]:
    """The number of bytes that follow as they are, and where they start."""
    short = data[place] >> 2
    if short < 60:
        return short + 1, place + 1
    width = short - 59
    return int.from_bytes(data[place + 1 : place + 1 + width], "little") + 1, place + 1 + width


def _copy(data: memoryview, place: int, kind: int) -> tuple[int, int]:
    """The length and the distance back of a repetition."""
    head = data[place]
    if kind == 1:
        low = int.from_bytes(data[place + 1 : place + 2], "little")
        return (head >> 2 & 7) + 4, (head >> 5) << 8 | low
    width = 2 if kind == 2 else 4
    return (head >> 2) + 1, int.from_bytes(data[place + 1 : place + 1 + width], "little")


def _repeat(out: bytearray, offset: int, length: int) -> None:
    """Appends ``length`` bytes from ``offset`` back; where they overlap, they repeat."""
    start = len(out) - offset
    piece = out[start : start + length]
    if offset < length:
        piece = (piece * (length // offset + 1))[:length]
    out += piece
