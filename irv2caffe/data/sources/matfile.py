"""The struct array in a MATLAB 5 file, as far as the ILSVRC devkit needs it.

The format is MathWorks' "MAT-File Format" (level 5): tagged elements, some of them compressed.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_BYTES = 16 << 20  # of all variables; the devkit's take a part of it
_MAX_DEPTH = 8
_TOO_LARGE = "it would unpack to more than 16 MB"
_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_TEXTS = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _CHAR = 1, 2, 4


def read_mat(data: bytes) -> dict[str, Any]:
    """The variables of a file: numbers, texts, and struct arrays as lists of dicts.

    An array of one value is that value; other arrays are flat lists in column order.

    Raises:
        FormatError: no MATLAB 5 file, a torn one, or one that no program of good faith writes.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise FormatError("not a MATLAB 5 file")
    found: dict[str, Any] = {}
    left = _MAX_BYTES
    try:
        for kind, body in _elements(data[_HEADER_BYTES:], order):
            if kind == _COMPRESSED:
                ((kind, body),) = _elements(_inflated(body, left), order)  # noqa: PLW2901
            left -= len(body)
            if left < 0:
                raise ValueError(_TOO_LARGE)
            if kind == _MATRIX:
                name, value = _matrix(body, order, 0)
                found[name] = value
    except (struct.error, zlib.error, ValueError, IndexError, OverflowError) as error:
        raise FormatError(f"a torn MATLAB file: {error}") from error
    return found


def _inflated(body: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj()
    data = inflater.decompress(body, most + 1)
    if inflater.unconsumed_tail:
        raise ValueError(_TOO_LARGE)
    return data


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, bytes) of each element; small ones hold their bytes in the tag."""
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            yield kind, data[place + 4 : place + 4 + size]
            place += 8
            continue
        if place + 8 + size > len(data):
            raise ValueError("an element is longer than the file")
        yield kind, data[place + 8 : place + 8 + size]
        place += 8 + size
        if kind != _COMPRESSED:
            place += -size % 8


def _matrix(body: bytes, order: str, depth: int) -> tuple[str, Any]:
    """(name, value) of an array."""
    if depth > _MAX_DEPTH:
        raise ValueError("arrays in arrays in arrays")
    elements = _elements(body, order)
    _, flags = next(elements, (0, b"\0\0\0\0"))
    kind = struct.unpack_from(f"{order}I", flags)[0] & 0xFF
    _, _dimensions = next(elements, (0, b""))
    _, name = next(elements, (0, b""))
    if kind == _STRUCT:
        value: Any = _structs(elements, order, depth)
    elif kind == _CELL:
        value = [_matrix(cell, order, depth + 1)[1] for _, cell in elements]
    else:
        value = _plain(next(elements, (0, b"")), order, is_text=kind == _CHAR)
    return name.decode("ascii", "replace"), value


def _structs(elements: Iterator[tuple[int, bytes]], order: str, depth: int) -> list[dict[str, Any]]:
    _, length_bytes = next(elements, (0, b""))
    length = struct.unpack_from(f"{order}i", length_bytes)[0]
    _, names = next(elements, (0, b""))
    if length <= 0:
        raise ValueError("a struct without names")
    fields = [
        names[place : place + length].split(b"\0")[0].decode("ascii", "replace")
        for place in range(0, len(names), length)
    ]
    values = [_matrix(body, order, depth + 1)[1] for _, body in elements]
    if not fields or len(values) % len(fields):
        raise ValueError("a struct with a part of its fields")
    return [
        dict(zip(fields, values[place : place + len(fields)], strict=True))
        for place in range(0, len(values), len(fields))
    ]


def _plain(element: tuple[int, bytes], order: str, *, is_text: bool) -> Any:
    kind, data = element
    if kind in _TEXTS:
        suffix = "" if kind == 16 else ("-le" if order == "<" else "-be")
        return data.decode(_TEXTS[kind] + suffix, "replace")
    code = _NUMBERS.get(kind)
    if code is None:
        return None
    count = len(data) // struct.calcsize(code)
    values = list(struct.unpack_from(f"{order}{count}{code}", data))
    if is_text:
        return "".join(chr(int(value)) for value in values)
    return values[0] if len(values) == 1 else values
