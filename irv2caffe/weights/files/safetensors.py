"""safetensors in and out: a JSON header with names, types and places, then the values."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import file_aside, unwritable
from irv2caffe.errors import FormatError
from irv2caffe.weights.files.values import from_file, num_values
from irv2caffe.weights.tensors import StoredArray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_KINDS = {
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F32": ("float32", 4),
    "F64": ("float64", 8),
    "I8": ("int8", 1),
    "I16": ("int16", 2),
    "I32": ("int32", 4),
    "I64": ("int64", 8),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
_NAMES = {kind: name for name, (kind, _) in _KINDS.items()}
_MAX_HEADER_BYTES = 16 << 20  # a hundred thousand arrays; the format itself allows 100 MB
_METADATA = "__metadata__"


def read_safetensors(path: Path) -> dict[str, StoredArray]:
    """The arrays of a file.

    Raises:
        FormatError: torn, or places that overlap, leave gaps or lie outside of the file.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= size - 8:
            raise FormatError("not a safetensors file, or cut short", path=path)
        if length > _MAX_HEADER_BYTES:
            raise FormatError(f"a header of {length:,} bytes, too many for weights", path=path)
        header = _parse(stream.read(length), path)
    start = 8 + length
    arrays: dict[str, StoredArray] = {}
    spans = []
    for name, entry in header.items():
        if name == _METADATA:
            continue
        arrays[name], span = _array(path, start, name, entry)
        spans.append(span)
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise FormatError("its arrays overlap or leave gaps", path=path)
        end = last
    if start + end != size:
        problem = f"{size:,} bytes, its header says {start + end:,}"
        raise FormatError(problem, "was its download complete?", path=path)
    return arrays


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError("not a safetensors file: its header is not JSON", path=path) from error
    if not isinstance(header, dict):
        raise FormatError("not a safetensors file: its header is not a table", path=path)
    return header


def _array(path: Path, start: int, name: str, entry: Any) -> tuple[StoredArray, tuple[int, int]]:
    """One array and where its bytes are, after the header."""
    try:
        kind, value_bytes = _KINDS.get(entry["dtype"], (str(entry["dtype"]), None))
        shape, (first, last) = tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"array {name!r} is not described", path=path) from error
    numbers = [*shape, first, last]
    if not all(type(number) is int and number >= 0 for number in numbers) or last < first:
        raise FormatError(f"array {name!r} has an impossible shape or place", path=path)
    try:
        count = num_values(shape)
    except FormatError as error:
        raise FormatError(f"{name!r}: {error.message}", path=path) from error
    if value_bytes is not None and count * value_bytes != last - first:
        raise FormatError(f"array {name!r} of shape {shape} has {last - first} bytes", path=path)
    place = start + first
    return StoredArray(shape, kind, lambda: from_file(path, kind, shape, place)), (first, last)


def write_safetensors(
    path: Path,
    arrays: Sequence[tuple[str, str, tuple[int, ...]]],
    read: Callable[[str], NDArray[Any]],
) -> None:
    """Writes arrays one by one, the widest types first, so that every value lies aligned.

    Args:
        path: the file; it appears when it is complete.
        arrays: name, kind (numpy's name of the type) and shape of each.
        read: gives the values of a name.

    Raises:
        OutputError: the file cannot be written.
    """
    import numpy as np

    header: dict[str, Any] = {_METADATA: {"format": "pt"}}
    ordered = sorted(arrays, key=lambda array: -np.dtype(array[1]).itemsize)
    end = 0
    for name, kind, shape in ordered:
        first, end = end, end + math.prod(shape) * np.dtype(kind).itemsize
        header[name] = {"dtype": _NAMES[kind], "shape": list(shape), "data_offsets": [first, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file_aside(path) as aside:
        try:
            with aside.open("wb") as stream:
                stream.write(len(text).to_bytes(8, "little") + text)
                for name, kind, _ in ordered:
                    stream.write(read(name).astype(kind).tobytes())
        except OSError as error:
            raise unwritable(path, error) from error
