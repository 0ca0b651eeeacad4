"""Snapshots on disk without loading them: protobuf's wire format, field by field.

The two files of a full Inception-ResNet-v2 hold half a gigabyte; whether they are whole, of which
iteration and of which net is told by walking over their fields, with the values left where they
are. A torn file ends inside of a field, and one whose last blocks were never written ends in
zeros, which begin no field.
"""

from __future__ import annotations

import mmap
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from irv2caffe.errors import FormatError, MissingInputError, UnreadableError
from irv2caffe.proto import messages
from irv2caffe.proto.wire import LENGTH, VARINT, fields, read_varint, tag, varint
from irv2caffe.system import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Field numbers of caffe.proto.
_STATE_ITER, _STATE_LEARNED_NET, _STATE_HISTORY, _STATE_STEP = 1, 2, 3, 4
_NET_NAME, _NET_LAYER, _NET_OLD_LAYER = 1, 100, 2
_OLD_NAME, _OLD_BLOBS = 4, 6  # of V1LayerParameter, which Caffe wrote until 2015
_LAYER_BLOBS = 7
_BLOB_DATA, _BLOB_SHAPE, _SHAPE_DIM = 5, 7, 1
_BLOB_LEGACY = (1, 2, 3, 4)
_CHUNK_VALUES = 1 << 20
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


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
        is_old: of a Caffe of 2014, which the definitions have only their names of.
    """

    layers: tuple[LayerOutline, ...]
    is_finite: bool
    is_old: bool = False


def read_state_outline(path: Path) -> StateOutline:
    """The outline of a solver state.

    Raises:
        MissingInputError: no such file.
        FormatError: torn, or another kind of file.
        UnreadableError: it is there, and a disk or a right keeps it from being read.
    """
    numbers = {_STATE_ITER: 0, _STATE_STEP: 0}
    learned_net = ""
    num_history = 0
    with _mapped(path) as data:
        for number, wire, value in _fields(data):
            if number in numbers and isinstance(value, int):
                numbers[number] = value
            elif number == _STATE_LEARNED_NET and not isinstance(value, int):
                learned_net = bytes(value).decode("utf-8", "replace")
            elif (number, wire) == (_STATE_HISTORY, LENGTH) and not isinstance(value, int):
                _shape(value)
                num_history += 1
            else:
                raise FormatError("not a solver state", "a .caffemodel goes to --weights")
        if not learned_net:
            raise FormatError("not a solver state", "it names no model")
    return StateOutline(numbers[_STATE_ITER], learned_net, num_history, numbers[_STATE_STEP])


def read_model_outline(path: Path, *, check_finite: bool = False) -> ModelOutline:
    """The outline of a model.

    Args:
        path: a ``.caffemodel``.
        check_finite: look at every weight too; a few tenths of a second for 56 million of them.

    Raises:
        MissingInputError: no such file.
        FormatError: torn, or another kind of file.
        UnreadableError: it is there, and a disk or a right keeps it from being read.
    """
    layers: list[LayerOutline] = []
    finite, is_old = True, False
    with _mapped(path) as data:
        for number, wire, value in _fields(data):
            if number == _NET_NAME and wire != LENGTH:
                raise FormatError("not a model", "a .solverstate goes to --resume")
            if number not in {_NET_LAYER, _NET_OLD_LAYER} or isinstance(value, int):
                continue
            is_old |= number == _NET_OLD_LAYER
            layer, blobs = _old_layer(value) if number == _NET_OLD_LAYER else _layer(value)
            layers.append(layer)
            if check_finite:
                finite = finite and all(map(_is_finite, blobs))
        if not layers:
            raise FormatError("not a model", "it holds no layers")
    return ModelOutline(tuple(layers), finite, is_old)


def with_learned_net(path: Path, learned_net: str) -> Iterator[bytes]:
    """The bytes of a solver state, in pieces, with another path of its model."""
    name = memoryview(learned_net.encode())
    with _mapped(path) as data:
        for number, wire, value in _fields(data):
            yield _encoded(number, wire, name if number == _STATE_LEARNED_NET else value)


def _layer(data: memoryview) -> tuple[LayerOutline, list[memoryview]]:
    """A layer's outline, and its blobs."""
    definition = bytearray()
    blobs = []
    for number, wire, value in _fields(data):
        if number == _LAYER_BLOBS and not isinstance(value, int):
            blobs.append(value)
        else:
            definition += _encoded(number, wire, value)
    message = messages.LayerParameter()
    try:
        message.ParseFromString(bytes(definition))
    except DecodeError as error:
        raise FormatError("not a binary NetParameter", "is it torn?") from error
    return LayerOutline(message, tuple(map(_shape, blobs))), blobs


def _old_layer(data: memoryview) -> tuple[LayerOutline, list[memoryview]]:
    """A V1LayerParameter's name and shapes, and its blobs."""
    definition = messages.LayerParameter()
    blobs = []
    for number, _, value in _fields(data):
        if number == _OLD_BLOBS and not isinstance(value, int):
            blobs.append(value)
        elif number == _OLD_NAME and not isinstance(value, int):
            definition.name = bytes(value).decode("utf-8", "replace")
    return LayerOutline(definition, tuple(map(_shape, blobs))), blobs


def _shape(blob: memoryview) -> tuple[int, ...]:
    """The shape of a BlobProto, from ``shape`` or from the four numbers of old files."""
    legacy: dict[int, int] = {}
    dims: list[int] | None = None
    for number, _, value in _fields(blob):
        if number == _BLOB_SHAPE and not isinstance(value, int):
            dims = []
            for inner, _, dim in _fields(value):
                if inner == _SHAPE_DIM:
                    dims += [dim] if isinstance(dim, int) else _packed(dim)
        elif number in _BLOB_LEGACY and isinstance(value, int):
            legacy[number] = value
    if dims is not None:
        return tuple(dims)
    return tuple(legacy.get(number, 0) for number in _BLOB_LEGACY)


def _packed(data: memoryview) -> list[int]:
    values, place = [], 0
    while place < len(data):
        value, place = read_varint(data, place)
        values.append(value)
    return values


def _is_finite(blob: memoryview) -> bool:
    import numpy as np

    for number, _, value in _fields(blob):
        if number != _BLOB_DATA or isinstance(value, int):
            continue
        values = np.frombuffer(value, "<f4", len(value) // 4)
        for first in range(0, len(values), _CHUNK_VALUES):
            if not np.isfinite(values[first : first + _CHUNK_VALUES]).all():
                return False
    return True


def _fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """The fields of a message; zeros, which a power cut leaves, are none."""
    for field in fields(data):
        if field[0] == 0:
            raise FormatError("torn", "its writing was interrupted")
        yield field


def _encoded(number: int, wire: int, value: int | memoryview) -> bytes:
    if isinstance(value, int):
        return tag(number, VARINT) + varint(value)
    length = varint(len(value)) if wire == LENGTH else b""
    return tag(number, wire) + length + bytes(value)


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    """The bytes of a file; what is found wrong with them is said of the file."""
    try:
        with open_regular(path) as stream:
            if os.fstat(stream.fileno()).st_size == 0:  # cannot be mapped
                raise FormatError("empty file", "was its writing interrupted?")
            data = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
        if data[: len(_HDF5_SIGNATURE)] == _HDF5_SIGNATURE:
            raise FormatError(
                "an HDF5 snapshot, not a binary one", "train with snapshot_format: BINARYPROTO"
            )
        yield memoryview(data)  # unmapped with the last view of it
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such file", "check the path") from error
    except FormatError as error:
        hint = error.hint or "its writing was interrupted, or it is another kind of file"
        raise FormatError(error.message, hint, path=path) from error
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}", path=path) from error
