"""The messages of an ONNX file, in protobuf's wire format (onnx/onnx, onnx.proto)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.proto import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

IR_VERSION = 7  # that of operator set 13
OPERATOR_SET = 13
_FLOAT, _INT64 = 1, 7  # TensorProto.DataType
# AttributeProto.AttributeType
_AS_FLOAT, _AS_INT, _AS_STRING, _AS_INTS = 1, 2, 3, 7


@dataclass
class OnnxModel:
    """An ONNX graph under construction.

    Attributes:
        name: of the graph.
        inputs: name and shape of each input; a name instead of a size leaves it open.
        outputs: of each output.
    """

    name: str
    inputs: list[tuple[str, Sequence[int | str]]] = field(default_factory=list)
    outputs: list[tuple[str, Sequence[int | str]]] = field(default_factory=list)
    _nodes: list[bytes] = field(default_factory=list)
    _constants: list[bytes] = field(default_factory=list)

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Adds an initializer, float32 or int64; returns its name."""
        kind = _INT64 if values.dtype.kind == "i" else _FLOAT
        raw = np.ascontiguousarray(values, "<i8" if kind == _INT64 else "<f4").tobytes()
        dims = b"".join(_number(1, size) for size in values.shape)
        self._constants.append(dims + _number(2, kind) + _text(8, name) + _message(9, raw))
        return name

    def add(
        self,
        operator: str,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        **attributes: Any,
    ) -> None:
        """Adds a node; attributes are ints, floats, strings and lists of ints."""
        body = b"".join(_text(1, each) for each in inputs)
        body += b"".join(_text(2, each) for each in outputs)
        body += _text(3, name) + _text(4, operator)
        for key, value in attributes.items():
            body += _message(5, _attribute(key, value))
        self._nodes.append(body)

    def to_bytes(self, producer: str, version: str) -> bytes:
        """The ModelProto."""
        graph = b"".join(_message(1, node) for node in self._nodes) + _text(2, self.name)
        graph += b"".join(_message(5, constant) for constant in self._constants)
        graph += b"".join(_message(11, _value(*each)) for each in self.inputs)
        graph += b"".join(_message(12, _value(*each)) for each in self.outputs)
        head = _number(1, IR_VERSION) + _text(2, producer) + _text(3, version)
        return head + _message(7, graph) + _message(8, _text(1, "") + _number(2, OPERATOR_SET))


def _number(field_number: int, value: int) -> bytes:
    return wire.tag(field_number, wire.VARINT) + wire.varint(value & (1 << 64) - 1)


def _message(field_number: int, body: bytes) -> bytes:
    return wire.tag(field_number, wire.LENGTH) + wire.varint(len(body)) + body


def _text(field_number: int, value: str) -> bytes:
    return _message(field_number, value.encode())


def _attribute(key: str, value: Any) -> bytes:
    head = _text(1, key)
    if isinstance(value, float):
        body = wire.tag(2, wire.FIXED32) + struct.pack("<f", value)
        return head + body + _number(20, _AS_FLOAT)
    if isinstance(value, int):
        return head + _number(3, value) + _number(20, _AS_INT)
    if isinstance(value, str):
        return head + _text(4, value) + _number(20, _AS_STRING)
    return head + b"".join(_number(8, each) for each in value) + _number(20, _AS_INTS)


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    """A ValueInfoProto of float32."""
    dims = b"".join(
        _message(1, _text(2, size) if isinstance(size, str) else _number(1, size)) for size in shape
    )
    return _text(1, name) + _message(2, _message(1, _number(1, _FLOAT) + _message(2, dims)))
