"""``.caffemodel``, ``.solverstate`` and ``.binaryproto`` in and out; writing is atomic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError, EncodeError

from irv2caffe.atomic import write_bytes
from irv2caffe.errors import FormatError, OutputError
from irv2caffe.proto import messages, wire
from irv2caffe.proto.text import read_input

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

LIMIT_BYTES = (1 << 31) - 1  # protobuf's own
MAX_AXES = 32  # of a blob (blob.hpp, kMaxBlobAxes), and of numpy's arrays before 2.0
_DATA = messages.BlobProto.DESCRIPTOR.fields_by_name["data"].number
_DOUBLE_DATA = messages.BlobProto.DESCRIPTOR.fields_by_name["double_data"].number
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def read_binary(path: Path, cls: Any) -> Any:
    """The message in a binary file.

    Args:
        path: the file, at most 2 GiB.
        cls: a class of :mod:`irv2caffe.proto.messages`.

    Raises:
        MissingInputError: no such file.
        FormatError: empty, torn, text, HDF5, or another message.
    """
    data = read_input(path, LIMIT_BYTES)
    name = cls.DESCRIPTOR.name
    refuse_other_formats(data, path)
    message = cls()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise not_binary(data[:4096], name, path) from error
    if _is_foreign(message):
        raise FormatError(
            f"holds another message than {name}",
            "a .solverstate is not a .caffemodel, nor the other way round",
            path=path,
        )
    return message


def refuse_other_formats(start: bytes, path: Path) -> None:
    """Refuses what is told by the first bytes of a file.

    Raises:
        FormatError: empty, or HDF5.
    """
    if not start:
        raise FormatError("empty file", "was its writing interrupted?", path=path)
    if start.startswith(_HDF5_SIGNATURE):
        raise FormatError(
            "an HDF5 snapshot, not a binary one",
            "train with snapshot_format: BINARYPROTO",
            path=path,
        )


def not_binary(start: bytes, what: str, path: Path) -> FormatError:
    """The error for bytes that did not parse, from the first ones of them."""
    hint = "is it cut short, or another kind of file?"
    if start.isascii() and b"{" in start:
        hint = "this looks like a prototxt; the binary file is wanted"
    return FormatError(f"not a binary {what}", hint, path=path)


def _is_foreign(message: Any) -> bool:
    """Whether the bytes parsed, but had fields that no such message has.

    Protobuf takes any fields it does not know; those of another message are told by that.
    """
    from google.protobuf import unknown_fields

    return len(unknown_fields.UnknownFieldSet(message)) > 0


def write_binary(path: Path, message: Any) -> None:
    """Writes a message in one step.

    Raises:
        OutputError: beyond protobuf's 2 GiB, or the file cannot be written.
    """
    try:
        data = message.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {error}") from error
    if len(data) > LIMIT_BYTES:
        raise OutputError(f"cannot write {path}: more than the 2 GiB that protobuf can hold")
    write_bytes(path, data)


def read_array(blob: Any) -> NDArray[np.float32] | NDArray[np.float64]:
    """The array of a BlobProto, in the shape it was saved with.

    Raises:
        FormatError: the number of values does not fit the shape.
    """
    import numpy as np

    is_double = len(blob.double_data) > 0
    values = np.array(blob.double_data if is_double else blob.data, "f8" if is_double else "f4")
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    else:
        shape = (blob.num, blob.channels, blob.height, blob.width)
    if len(shape) > MAX_AXES:
        raise FormatError(f"a blob of {len(shape):,} axes, where Caffe knows {MAX_AXES}")
    if any(dim < 0 for dim in shape) or math.prod(shape) != values.size:
        raise FormatError(f"a blob of shape {shape} holds {values.size} values")
    return values.reshape(shape)


def blob_from_array(array: NDArray[Any]) -> Any:
    """A BlobProto with an array's shape; float64 is kept double, all else becomes float.

    The values go in as one packed field: as Python numbers they take ten times their memory.
    """
    import numpy as np

    blob = messages.BlobProto()
    blob.shape.dim.extend(array.shape)
    number, kind = (_DOUBLE_DATA, "<f8") if array.dtype == "f8" else (_DATA, "<f4")
    values = np.ascontiguousarray(array, kind)
    if values.size:
        head = wire.tag(number, wire.LENGTH) + wire.varint(values.nbytes)
        blob.MergeFromString(head + values.tobytes())
    return blob
