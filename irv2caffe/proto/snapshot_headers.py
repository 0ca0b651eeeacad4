"""Iteration, layers and shapes of snapshots, read without loading the weights.

The two files of an Inception-ResNet-v2 snapshot hold half a gigabyte. Walking over the protobuf
fields shows whether they are complete: a truncated file ends within a field, and one whose last
blocks were lost in a power cut ends in zeros, which are not a valid field.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from irv2caffe.errors import FormatError
from irv2caffe.proto import messages
from irv2caffe.proto.input_files import map_binary
from irv2caffe.proto.wire import LENGTH, VARINT, fields, read_varint, tag, varint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Field numbers in caffe.proto.
_STATE_ITER, _STATE_LEARNED_NET, _STATE_HISTORY, _STATE_STEP = 1, 2, 3, 4
_NET_NAME, _NET_LAYER, _NET_OLD_LAYER = 1, 100, 2
_OLD_NAME, _OLD_BLOBS = 4, 6  # in V1LayerParameter, which Caffe wrote until 2015
_LAYER_BLOBS = 7
_BLOB_DATA, _BLOB_SHAPE, _SHAPE_DIM = 5, 7, 1
_BLOB_LEGACY = (1, 2, 3, 4)
_CHUNK_VALUES = 1 << 20


@dataclass(frozen=True)
class StateHeader:
    """A ``.solverstate`` without the values of its history."""

    iteration: int
    learned_net: str
    num_history: int
    current_step: int


@dataclass(frozen=True)
class LayerHeader:
    """The definition of a layer in a ``.caffemodel``, and the shapes of its blobs."""

    definition: Any
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ModelHeader:
    """A ``.caffemodel`` without its weights.

    Attributes:
        layers: in the order of the file.
        is_finite: whether all weights are finite; True if this was not checked.
        is_old: written by a Caffe of 2014 or before; the definitions then hold names only.
    """

    layers: tuple[LayerHeader, ...]
    is_finite: bool
    is_old: bool = False


def read_state_header(path: Path) -> StateHeader:
    """Reads a ``.solverstate`` without its history.

    Raises:
        MissingInputError: no such file.
        FormatError: truncated, or another kind of file.
        UnreadableError: the file exists but cannot be read.
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
                raise FormatError("not a solver state", "use --weights for a .caffemodel")
        if not learned_net:
            raise FormatError("not a solver state", "it names no model")
    return StateHeader(numbers[_STATE_ITER], learned_net, num_history, numbers[_STATE_STEP])


def read_model_header(path: Path, *, check_finite: bool = False) -> ModelHeader:
    """Reads a ``.caffemodel`` without its weights.

    Args:
        path: a ``.caffemodel``.
        check_finite: check every weight for NaN and infinity; takes 0.3 s for 56 million.

    Raises:
        MissingInputError: no such file.
        FormatError: truncated, or another kind of file.
        UnreadableError: the file exists but cannot be read.
    """
    layers: list[LayerHeader] = []
    finite, is_old = True, False
    with _mapped(path) as data:
        for number, wire, value in _fields(data):
            if number == _NET_NAME and wire != LENGTH:
                raise FormatError("not a model", "use --resume for a .solverstate")
            if number not in {_NET_LAYER, _NET_OLD_LAYER} or isinstance(value, int):
                continue
            is_old |= number == _NET_OLD_LAYER
            layer, blobs = _old_layer(value) if number == _NET_OLD_LAYER else _layer(value)
            layers.append(layer)
            if check_finite:
                finite = finite and all(map(_is_finite, blobs))
        if not layers:
            raise FormatError("not a model", "it holds no layers")
    return ModelHeader(tuple(layers), finite, is_old)


def with_learned_net(path: Path, learned_net: str) -> Iterator[bytes]:
    """Yields the bytes of a solver state, with the path of its model replaced."""
    name = memoryview(learned_net.encode())
    with _mapped(path) as data:
        for number, wire, value in _fields(data):
            yield _encoded(number, wire, name if number == _STATE_LEARNED_NET else value)


def _layer(data: memoryview) -> tuple[LayerHeader, list[memoryview]]:
    """Returns the header of a LayerParameter, and its encoded blobs."""
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
        raise FormatError("not a binary NetParameter", "is it truncated?") from error
    return LayerHeader(message, tuple(map(_shape, blobs))), blobs


def _old_layer(data: memoryview) -> tuple[LayerHeader, list[memoryview]]:
    """Returns the header of a V1LayerParameter, and its encoded blobs."""
    definition = messages.LayerParameter()
    blobs = []
    for number, _, value in _fields(data):
        if number == _OLD_BLOBS and not isinstance(value, int):
            blobs.append(value)
        elif number == _OLD_NAME and not isinstance(value, int):
            definition.name = bytes(value).decode("utf-8", "replace")
    return LayerHeader(definition, tuple(map(_shape, blobs))), blobs


def _shape(blob: memoryview) -> tuple[int, ...]:
    """Returns the shape of a BlobProto, from ``shape`` or from num, channels, height and width."""
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
    """Yields the fields of a message; refuses the zeros that a power cut leaves."""
    for field in fields(data):
        if field[0] == 0:
            raise FormatError("truncated", "its writing was interrupted")
        yield field


def _encoded(number: int, wire: int, value: int | memoryview) -> bytes:
    if isinstance(value, int):
        return tag(number, VARINT) + varint(value)
    length = varint(len(value)) if wire == LENGTH else b""
    return tag(number, wire) + length + bytes(value)


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    """Yields the bytes of a file; errors raised in the block name the file."""
    data = map_binary(path)
    try:
        yield data
    except FormatError as error:
        hint = error.hint or "its writing was interrupted, or it is another kind of file"
        raise FormatError(error.message, hint, path=path) from error
