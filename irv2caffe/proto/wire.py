"""Protobuf's wire format by hand, where whole arrays should not become Python numbers.

Also how messages without a schema of ours are read: TensorFlow's checkpoints consist of them.
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
    """The number at ``start`` and where it ends.

    Raises:
        FormatError: the data ends within it, or it is longer than 64 bits.
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
    """A number that is not negative, as written before lengths and in tags."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire_type: int) -> bytes:
    """What stands before the value of field ``number``."""
    return varint(number << 3 | wire_type)


def fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yields (number, wire type, value) of each field of a message.

    Numbers come as an int; strings, messages, packed arrays and fixed-size values as a view of
    ``data``, so that nothing is copied.

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
    """The last value of each field of a message without a schema.

    A field that is not there is 0 or empty, as in any message.
    """

    def __init__(self, data: memoryview) -> None:
        self._values = {number: value for number, _, value in fields(data)}

    def __contains__(self, number: int) -> bool:
        return number in self._values

    def number(self, number: int) -> int:
        """A number, of whatever length it is stored in.

        Raises:
            FormatError: the field holds something longer.
        """
        value = self._values.get(number, 0)
        if isinstance(value, int):
            return value
        if len(value) > 8:
            raise FormatError("holds a message where a number should be")
        return int.from_bytes(value, "little")

    def data(self, number: int) -> memoryview:
        """A string, message or packed array.

        Raises:
            FormatError: the field holds a number.
        """
        value = self._values.get(number, memoryview(b""))
        if isinstance(value, int):
            raise FormatError("holds a number where a message should be")
        return value


def messages_in(data: memoryview, number: int) -> Iterator[memoryview]:
    """Each value of a repeated field of strings or messages."""
    for found, wire_type, value in fields(data):
        if found == number and wire_type == LENGTH and isinstance(value, memoryview):
            yield value
