"""Binary protobuf files (``.caffemodel``, ``.solverstate``, ``.binaryproto``) and BlobProtos."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError, EncodeError

from irv2caffe.atomic import write_bytes
from irv2caffe.errors import FormatError, OutputError
from irv2caffe.proto import messages, wire
from irv2caffe.proto.input_files import read_input, refuse_other_formats

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

LIMIT_BYTES = (1 << 31) - 1  # largest message that protobuf can hold
MAX_AXES = 32  # kMaxBlobAxes in blob.hpp; also the limit of numpy before 2.0
_LEGACY = ("num", "channels", "height", "width")
_DATA = messages.BlobProto.DESCRIPTOR.fields_by_name["data"].number
_DOUBLE_DATA = messages.BlobProto.DESCRIPTOR.fields_by_name["double_data"].number


def read_binary(path: Path, cls: Any) -> Any:
    """Reads a message from a binary file.

    Args:
        path: the file, at most 2 GiB.
        cls: class of the message, from :mod:`irv2caffe.proto.messages`.

    Raises:
        MissingInputError: no such file.
        FormatError: empty, truncated, text, HDF5, or another message.
    """
    from google.protobuf import unknown_fields

    data = read_input(path, LIMIT_BYTES)
    name = cls.DESCRIPTOR.name
    refuse_other_formats(data, path)
    message = cls()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise not_binary(data[:4096], name, path) from error
    if len(unknown_fields.UnknownFieldSet(message)):  # protobuf parses any message as any other
        raise FormatError(
            f"holds another message than {name}",
            "is it a .solverstate instead of a .caffemodel, or the reverse?",
            path=path,
        )
    return message


def not_binary(start: bytes, what: str, path: Path) -> FormatError:
    """Returns the error for a file that is no ``what``, with a hint from its first bytes."""
    hint = "is it truncated, or another kind of file?"
    if start.isascii() and b"{" in start:
        hint = "this looks like a prototxt; give the binary file"
    return FormatError(f"not a binary {what}", hint, path=path)


def write_binary(path: Path, message: Any) -> None:
    """Writes a message to a binary file, atomically.

    Raises:
        OutputError: larger than 2 GiB, or the file cannot be written.
    """
    try:
        data = message.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {error}") from error
    if len(data) > LIMIT_BYTES:
        raise OutputError(f"cannot write {path}: more than the 2 GiB that protobuf can hold")
    write_bytes(path, data)


def read_array(blob: Any) -> NDArray[np.float32] | NDArray[np.float64]:
    """Returns the array of a BlobProto, float32 or float64, in its shape.

    Raises:
        FormatError: the number of values does not match the shape.
    """
    import numpy as np

    is_double = len(blob.double_data) > 0
    values = np.array(blob.double_data if is_double else blob.data, "f8" if is_double else "f4")
    legacy = tuple(getattr(blob, name) for name in _LEGACY)
    shape = legacy if is_legacy(blob) else tuple(blob.shape.dim)
    if len(shape) > MAX_AXES:
        raise FormatError(f"a blob of {len(shape):,} axes; Caffe allows {MAX_AXES}")
    if any(dim < 0 for dim in shape) or math.prod(shape) != values.size:
        raise FormatError(f"a blob of shape {shape} holds {values.size} values")
    return values.reshape(shape)


def is_legacy(blob: Any) -> bool:
    """Whether a BlobProto has the four sizes of all blobs before 2015, which win over a shape."""
    return any(blob.HasField(name) for name in _LEGACY)


def read_fitting_array(blob: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Returns the array of a BlobProto for a blob of a given shape (Blob::FromProto).

    Blobs of the time before 2015 have 1 in front of their sizes.

    Raises:
        FormatError: another shape, or a number of values that does not match it.
    """
    array = read_array(blob)
    wanted = (1,) * (len(_LEGACY) - len(shape)) + shape if is_legacy(blob) else shape
    if array.shape != wanted:
        here, there = ("x".join(map(str, each)) or "scalar" for each in (shape, array.shape))
        raise FormatError(f"{there} in the model, {here} in the net")
    return array.reshape(shape)


def blob_from_array(array: NDArray[Any]) -> Any:
    """Returns a BlobProto with the shape and values of an array; all but float64 become float32.

    The values are parsed from one packed field, since Python numbers take ten times the memory.
    """
    import numpy as np

    blob = messages.BlobProto()
    if array.ndim:  # Caffe writes no shape for a scalar
        blob.shape.dim.extend(array.shape)
    number, kind = (_DOUBLE_DATA, "<f8") if array.dtype == "f8" else (_DATA, "<f4")
    values = np.ascontiguousarray(array, kind)
    if values.size:
        head = wire.tag(number, wire.LENGTH) + wire.varint(values.nbytes)
        blob.MergeFromString(head + values.tobytes())
    return blob
