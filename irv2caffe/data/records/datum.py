"""Datum bytes and keys, as convert_imageset writes them (convert_imageset.cpp, util/io.cpp).

A record consists of a head, the pixels and a tail, so that hundreds of kilobytes are copied once
instead of five times; the tests compare it with protobuf's serialization.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from irv2caffe.errors import FormatError
from irv2caffe.proto.wire import read_varint, varint

_NUMBERS = frozenset({1, 2, 3, 5, 7})  # channels, height, width, label, encoded
_DATA, _LABEL, _FLOATS, _ENCODED = 4, 5, 6, 7
_VARINT, _BYTES, _FLOAT = 0, 2, 5
_FIXED_BYTES = {1: 8, _FLOAT: 4}

_FEW_CHANNELS = 8  # no training image has such a small side
MAX_KEY_BYTES = 511  # LMDB's own limit; convert_imageset dies on longer ones


def record_key(index: int, name: str) -> bytes:
    """The key of the image with an index in the (shuffled) list: ``00000012_class/name.jpg``."""
    return f"{index:08d}_{name}".encode("utf-8", "surrogateescape")


def raw_head(shape: tuple[int, int, int]) -> bytes:
    """The bytes before the pixels of a raw record.

    Args:
        shape: (channels, height, width).
    """
    channels, height, width = shape
    sides = b"\x08" + varint(channels) + b"\x10" + varint(height) + b"\x18" + varint(width)
    return sides + b"\x22" + varint(channels * height * width)


def raw_tail(label: int) -> bytes:
    """The bytes after the pixels: the label, and ``encoded: false``.

    The latter is the default; convert_imageset writes it nevertheless.
    """
    return b"\x28" + varint(label) + b"\x38\x00"


def encoded_head(num_bytes: int) -> bytes:
    """The bytes before the file in a compressed record; no shape, as convert_imageset writes it."""
    return b"\x22" + varint(num_bytes)


def encoded_tail(label: int) -> bytes:
    """The bytes after the file: the label, and ``encoded: true``."""
    return b"\x28" + varint(label) + b"\x38\x01"


@dataclass(frozen=True, slots=True)
class DatumHead:
    """A record without its pixels.

    Attributes:
        shape: (channels, height, width); zeros where they are missing.
        label: of the class; None where it is missing.
        is_encoded: ``data`` is a compressed image.
        data: (offset, size) of the field ``data`` in the record.
        num_floats: number of values in the field ``float_data``.
    """

    shape: tuple[int, int, int]
    label: int | None
    is_encoded: bool
    data: tuple[int, int]
    num_floats: int


def read_head(value: bytes | memoryview) -> DatumHead:
    """Reads the fields of a record without its pixels, which are not loaded from the disk.

    Raises:
        FormatError: not a Datum.
    """
    numbers: dict[int, int] = {}
    data = (0, 0)
    num_floats = place = 0
    try:
        while place < len(value):
            tag, place = read_varint(value, place)
            field, wire = tag >> 3, tag & 7
            if wire == _VARINT and field in _NUMBERS:
                numbers[field], place = read_varint(value, place)
            elif wire == _BYTES and field in {_DATA, _FLOATS}:
                size, place = read_varint(value, place)
                if field == _DATA:
                    data = (place, size)
                else:
                    num_floats += size // 4
                place += size
            elif wire == _FLOAT and field == _FLOATS:
                num_floats += 1
                place += 4
            else:  # skipped as protobuf skips unknown fields
                place = _end_of_field(value, place, wire)
        if place != len(value):
            raise IndexError
    except (FormatError, IndexError, OverflowError) as error:  # a size may exceed any index
        raise FormatError("a record is not a Datum", "was it made for Caffe?") from error
    sides = [_int32(numbers.get(field, 0)) for field in (1, 2, 3)]
    label = _int32(numbers[_LABEL]) if _LABEL in numbers else None
    shape = (sides[0], sides[1], sides[2])
    return DatumHead(shape, label, bool(numbers.get(_ENCODED, 0)), data, num_floats)


def holds_its_image(head: DatumHead) -> bool:
    """Whether an uncompressed record has as many values as its shape says.

    Caffe does not check (data_transformer.cpp, Transform): it reads past the end of a shorter one.
    """
    channels, height, width = head.shape
    return min(head.shape) > 0 and channels * height * width in {head.data[1], head.num_floats}


def is_height_first(head: DatumHead) -> bool:
    """Whether the shape looks like height x width x channels, the layout of OpenCV and PIL.

    Caffe uses the first size as the channels. Records of floats are not judged.
    """
    first, second, third = head.shape
    is_image = not head.is_encoded and head.data[1] > 0 and min(first, second) > _FEW_CHANNELS
    return is_image and (third in {3, 4} or (third == 1 and first == second))


def _end_of_field(value: bytes | memoryview, place: int, wire: int) -> int:
    """The end of a field of a wire type."""
    if wire == _VARINT:
        return read_varint(value, place)[1]
    if wire == _BYTES:
        size, place = read_varint(value, place)
        return place + size
    if wire in _FIXED_BYTES:
        return place + _FIXED_BYTES[wire]
    raise IndexError


def _int32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def parse_datum(value: bytes) -> Any:
    """The Datum in a record.

    Raises:
        FormatError: not a Datum.
    """
    from google.protobuf.message import DecodeError

    from irv2caffe.proto import messages

    try:
        return messages.Datum.FromString(value)
    except DecodeError as error:
        raise FormatError("a record is not a Datum", "was it made for Caffe?") from error
