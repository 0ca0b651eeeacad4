"""Reads arrays from the bytes of a file."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import FormatError
from irv2caffe.proto.binary import MAX_AXES
from irv2caffe.weights.files.extras import needed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


@contextmanager
def named(path: Path, prefix: str = "") -> Iterator[None]:
    """Adds a file to errors that do not name one.

    Raises:
        FormatError: as raised inside, with the file.
    """
    try:
        yield
    except FormatError as error:
        if error.path is not None:
            raise
        raise FormatError(prefix + error.message, error.hint, path=path) from error


def num_values(shape: tuple[int, ...]) -> int:
    """The number of values in an array.

    Raises:
        FormatError: more axes than numpy or Caffe allows.
    """
    if len(shape) > MAX_AXES:  # before their product, which could have millions of digits
        raise FormatError(f"an array of {len(shape):,} axes")
    return math.prod(shape)


def dtype_of(kind: str) -> np.dtype[Any]:
    """The little-endian type of a name such as ``float32`` or ``bfloat16``.

    Raises:
        MissingExtraError: the package for bfloat16 is not installed.
        FormatError: a type that numpy does not have.
    """
    import numpy as np

    if kind == "bfloat16":
        with needed("ml_dtypes", "reading bfloat16 values"):
            import ml_dtypes  # noqa: F401  # adds the type to numpy
    try:
        return np.dtype(kind).newbyteorder("<")
    except TypeError as error:
        raise FormatError(f"values of type {kind} cannot be read") from error


def from_bytes(data: Any, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """The array in little-endian ``data``; bfloat16 is returned as float32.

    Raises:
        FormatError: another number of bytes than the shape has.
    """
    import numpy as np

    dtype = dtype_of(kind)
    if len(data) != num_values(shape) * dtype.itemsize:
        raise FormatError(f"{len(data)} bytes do not make an array of shape {shape}")
    values = np.frombuffer(data, dtype).reshape(shape)
    return values.astype("f4") if kind == "bfloat16" else values


def read_at(path: Path, place: int, size: int) -> bytes:
    """Reads ``size`` bytes at the offset ``place``.

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
