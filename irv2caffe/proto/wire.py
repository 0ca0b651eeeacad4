"""Protobuf's wire format, for large arrays and for messages without a schema.

Arrays stay bytes instead of Python numbers; TensorFlow checkpoints are read without a schema.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT_BYTES = 10


def read_varint(data: bytes | memoryview, start: int) -> tuple[int, int]:
    """Returns the varint at offset ``start``, and the offset after it.

    Raises:
        FormatError: truncated, or longer than 64 bits.
    """
    value = 0
    try:
        for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
            byte = data[start]
            start += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, start
    except IndexError as error:
        raise FormatError("ends in the middle of a number") from error
    raise FormatError("holds a number of more than 64 bits")


def varint(value: int) -> bytes:
    """Encodes a non-negative number as a varint."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire_type: int) -> bytes:
    """Encodes the tag of a field: its number and wire type."""
    return varint(number << 3 | wire_type)


def fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yields (number, wire type, value) of each field of a message.

    Varints are returned as int; strings, messages, packed arrays and fixed-size values as views of
    ``data``, without copying.

    Raises:
        FormatError: not a message.
    """
    place = 0
    while place < len(data):
        key, place = read_varint(data, place)
        number, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            value, place = read_varint(data, place)
            yield number, wire_type, value
            continue
        if wire_type == LENGTH:
            size, place = read_varint(data, place)
        elif wire_type in _FIXED_BYTES:
            size = _FIXED_BYTES[wire_type]
        else:
            raise FormatError(f"holds a field of the unknown wire type {wire_type}")
        if number == 0 or place + size > len(data):
            raise FormatError("ends in the middle of a field")
        yield number, wire_type, data[place : place + size]
        place += size


class Fields:
    """The fields of a message without a schema; of repeated fields, the last value.

    Missing fields are 0 or empty, as in protobuf.
    """

    def __init__(self, data: memoryview) -> None:
        self._values = {number: value for number, _, value in fields(data)}

    def __contains__(self, number: int) -> bool:
        return number in self._values

    def number(self, number: int) -> int:
        """Returns a numeric field, a varint or a fixed-size integer.

        Raises:
            FormatError: the value is longer than 8 bytes.
        """
        value = self._values.get(number, 0)
        if isinstance(value, int):
            return value
        if len(value) > 8:
            raise FormatError("holds a message where a number should be")
        return int.from_bytes(value, "little")

    def data(self, number: int) -> memoryview:
        """Returns the bytes of a string, message or packed array.

        Raises:
            FormatError: the value is a number.
        """
        value = self._values.get(number, memoryview(b""))
        if isinstance(value, int):
            raise FormatError("holds a number where a message should be")
        return value


def messages_in(data: memoryview, number: int) -> Iterator[memoryview]:
    """Yields the values of a repeated field of strings or messages."""
    for found, wire_type, value in fields(data):
        if found == number and wire_type == LENGTH and isinstance(value, memoryview):
            yield value
