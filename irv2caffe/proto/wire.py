"""Snapshots on disk without loading them: protobuf's wire format, field by field.

The two files of a full Inception-ResNet-v2 hold half a gigabyte; whether they are whole, of which
iteration and of which net is told by walking over their fields, with the values left where they
are. A torn file ends inside of a field, and one whose last blocks were never written ends in
zeros, which begin no field.
"""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.message import DecodeError

from irv2caffe.errors import FormatError, MissingInputError
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Field numbers of caffe.proto.
_STATE_ITER, _STATE_LEARNED_NET, _STATE_HISTORY, _STATE_STEP = 1, 2, 3, 4
_NET_NAME, _NET_LAYER = 1, 100
_LAYER_BLOBS = 7
_BLOB_DATA, _BLOB_SHAPE, _SHAPE_DIM = 5, 7, 1
_BLOB_LEGACY = (1, 2, 3, 4)
_CHUNK_VALUES = 1 << 20
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class Field(NamedTuple):
    """A field where it lies: its first byte, its value's, and the first byte behind it."""

    number: int
    kind: int
    start: int
    value: int
    end: int


@dataclass(frozen=True)
class StateOutline:
    """What a ``.solverstate`` says without its history."""

    iteration: int
    learned_net: str
    num_history: int
    current_step: int


@dataclass(frozen=True)
class LayerOutline:
    """A layer of a ``.caffemodel``: its definition, and the shapes of its weights."""

    definition: Any
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ModelOutline:
    """A ``.caffemodel`` without its weights.

    Attributes:
        layers: in order.
        is_finite: no weight is infinite or not a number; True where nobody looked.
    """

    layers: tuple[LayerOutline, ...]
    is_finite: bool


def read_state_outline(path: Path) -> StateOutline:
    """The outline of a solver state.

    Raises:
        MissingInputError: no such file.
        FormatError: torn, or another kind of file.
    """
    iteration = step = history = 0
    learned_net = ""
    with _mapped(path) as data:
        for field in _fields(data, 0, len(data), path):
            kind = (field.number, field.kind)
            if kind == (_STATE_ITER, _VARINT):
                iteration = _varint(data, field.value, field.end, path)[0]
            elif kind == (_STATE_LEARNED_NET, _BYTES):
                learned_net = bytes(data[field.value : field.end]).decode("utf-8", "replace")
            elif kind == (_STATE_HISTORY, _BYTES):
                _shape(data, field, path)
                history += 1
            elif kind == (_STATE_STEP, _VARINT):
                step = _varint(data, field.value, field.end, path)[0]
            else:
                raise _foreign(path, "solver state", "a .caffemodel goes to --weights")
    if not learned_net:
        raise _foreign(path, "solver state", "it names no model")
    return StateOutline(iteration, learned_net, history, step)


def read_model_outline(path: Path, *, check_finite: bool = False) -> ModelOutline:
    """The outline of a model.

    Args:
        path: a ``.caffemodel``.
        check_finite: look at every weight too; a few tenths of a second for 56 million of them.

    Raises:
        MissingInputError: no such file.
        FormatError: torn, or another kind of file.
    """
    layers: list[LayerOutline] = []
    finite = True
    with _mapped(path) as data:
        for field in _fields(data, 0, len(data), path):
            if (field.number, field.kind) != (_NET_LAYER, _BYTES):
                if field.number == _NET_NAME and field.kind != _BYTES:
                    raise _foreign(path, "model", "a .solverstate goes to --resume")
                continue
            layer, blobs = _layer(data, field, path)
            layers.append(layer)
            if check_finite:
                finite = finite and all(_is_finite(data, blob, path) for blob in blobs)
    if not layers:
        raise _foreign(path, "model", "it holds no layers")
    return ModelOutline(tuple(layers), finite)


def with_learned_net(path: Path, learned_net: str) -> Iterator[bytes]:
    """The bytes of a solver state, in pieces, with another path of its model."""
    name = learned_net.encode()
    with _mapped(path) as data:
        for field in _fields(data, 0, len(data), path):
            if field.number == _STATE_LEARNED_NET:
                yield bytes([_STATE_LEARNED_NET << 3 | _BYTES]) + _to_varint(len(name)) + name
            else:
                yield bytes(data[field.start : field.end])


def _layer(data: memoryview, field: Field, path: Path) -> tuple[LayerOutline, list[Field]]:
    """A layer's outline, and where its blobs lie."""
    definition = bytearray()
    blobs = []
    for part in _fields(data, field.value, field.end, path):
        if part.number == _LAYER_BLOBS:
            blobs.append(part)
        else:
            definition += data[part.start : part.end]
    message = messages.LayerParameter()
    try:
        message.ParseFromString(bytes(definition))
    except DecodeError as error:
        raise FormatError("not a binary NetParameter", "is it torn?", path=path) from error
    return LayerOutline(message, tuple(_shape(data, blob, path) for blob in blobs)), blobs


def _shape(data: memoryview, blob: Field, path: Path) -> tuple[int, ...]:
    """The shape of a BlobProto, from ``shape`` or from the four numbers of old files."""
    legacy: dict[int, int] = {}
    dims: list[int] | None = None
    for part in _fields(data, blob.value, blob.end, path):
        if part.number == _BLOB_SHAPE and part.kind == _BYTES:
            dims = []
            for inner in _fields(data, part.value, part.end, path):
                if inner.number == _SHAPE_DIM:
                    dims += _varints(data, inner, path)
        elif part.number in _BLOB_LEGACY and part.kind == _VARINT:
            legacy[part.number] = _varint(data, part.value, part.end, path)[0]
    if dims is not None:
        return tuple(dims)
    return tuple(legacy.get(number, 0) for number in _BLOB_LEGACY)


def _is_finite(data: memoryview, blob: Field, path: Path) -> bool:
    import numpy as np

    for part in _fields(data, blob.value, blob.end, path):
        if part.number != _BLOB_DATA or part.kind != _BYTES:
            continue
        count = (part.end - part.value) // 4
        values = np.frombuffer(data, "<f4", count, part.value)
        for first in range(0, count, _CHUNK_VALUES):
            if not np.isfinite(values[first : first + _CHUNK_VALUES]).all():
                return False
        del values
    return True


def _fields(data: memoryview, start: int, end: int, path: Path) -> Iterator[Field]:
    """The fields between two places; they must fill them exactly."""
    at = start
    while at < end:
        tag, value = _varint(data, at, end, path)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise _torn(path)
        if kind == _VARINT:
            stop = _varint(data, value, end, path)[1]
        elif kind == _BYTES:
            length, value = _varint(data, value, end, path)
            stop = value + length
        elif kind in {_FIXED32, _FIXED64}:
            stop = value + (4 if kind == _FIXED32 else 8)
        else:
            raise _torn(path)
        if stop > end:
            raise _torn(path)
        yield Field(number, kind, at, value, stop)
        at = stop


def _varint(data: memoryview, at: int, end: int, path: Path) -> tuple[int, int]:
    """(value, first byte behind it)."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise _torn(path)


def _varints(data: memoryview, field: Field, path: Path) -> Iterator[int]:
    """Packed or single."""
    at = field.value
    while at < field.end:
        value, at = _varint(data, at, field.end, path)
        yield value


def _to_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    try:
        if path.stat().st_size == 0:  # cannot be mapped
            raise FormatError("empty file", "was its writing interrupted?", path=path)
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as data:
            if data[: len(_HDF5_SIGNATURE)] == _HDF5_SIGNATURE:
                raise FormatError(
                    "an HDF5 snapshot, not a binary one",
                    "train with snapshot_format: BINARYPROTO",
                    path=path,
                )
            with memoryview(data) as view:
                yield view
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such file", "check the path") from error
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", path=path) from error


def _torn(path: Path) -> FormatError:
    return FormatError("torn", "its writing was interrupted", path=path)


def _foreign(path: Path, wanted: str, hint: str) -> FormatError:
    return FormatError(f"not a {wanted}", hint, path=path)
