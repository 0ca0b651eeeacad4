"""Bytes to arrays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import FormatError
from irv2caffe.proto.binary import MAX_AXES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def num_values(shape: tuple[int, ...]) -> int:
    """How many values an array has.

    Raises:
        FormatError: more axes than an array of numpy's or Caffe's can have.
    """
    if len(shape) > MAX_AXES:  # before their product, which could have millions of digits
        raise FormatError(f"an array of {len(shape):,} axes")
    return math.prod(shape)


def value_bytes(kind: str) -> int:
    """The size of one value.

    Raises:
        FormatError: a type that numpy has not.
    """
    import numpy as np

    try:
        return 2 if kind == "bfloat16" else int(np.dtype(kind).itemsize)
    except TypeError as error:
        raise FormatError(f"values of type {kind} cannot be read") from error


def from_bytes(data: Any, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Little-endian values; bfloat16, the upper half of a float32, becomes one.

    Raises:
        FormatError: another number of bytes than the shape has.
    """
    import numpy as np

    if len(data) != num_values(shape) * value_bytes(kind):
        raise FormatError(f"{len(data)} bytes do not make an array of shape {shape}")
    if kind == "bfloat16":
        upper = np.frombuffer(data, "<u2").astype("<u4") << 16
        return upper.view("<f4").reshape(shape)
    return np.frombuffer(data, np.dtype(kind).newbyteorder("<")).reshape(shape)


def from_file(path: Path, kind: str, shape: tuple[int, ...], place: int) -> NDArray[Any]:
    """The values that stand at ``place`` in a file.

    Raises:
        FormatError: the file ends before them.
    """
    return from_bytes(read_at(path, place, num_values(shape) * value_bytes(kind)), kind, shape)


def read_at(path: Path, place: int, size: int) -> bytes:
    """``size`` bytes from ``place`` on.

    Raises:
        FormatError: the file ends before them.
    """
    try:
        with path.open("rb") as stream:
            if place + size > path.stat().st_size:  # before seek, which takes 63 bits only
                raise FormatError("cut short", "was its download complete?", path=path)
            stream.seek(place)
            data = stream.read(size)
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", path=path) from error
    if len(data) != size:
        raise FormatError("cut short", "was its download complete?", path=path)
    return data
