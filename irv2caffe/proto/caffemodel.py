"""Reading and writing of ``.caffemodel`` files layer by layer, to save memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from irv2caffe.atomic import atomic_file, write_error
from irv2caffe.errors import FormatError, OutputError
from irv2caffe.proto import messages, wire
from irv2caffe.proto.binary import LIMIT_BYTES, not_binary
from irv2caffe.proto.input_files import map_binary

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_FIELDS = messages.NetParameter.DESCRIPTOR.fields_by_number
_LAYER = messages.NetParameter.DESCRIPTOR.fields_by_name["layer"].number
# Field number in NetParameter of today's layers, and of those of 2014 and before.
_LAYER_CLASSES = {_LAYER: messages.LayerParameter, 2: messages.message_class("V1LayerParameter")}


class ModelFile:
    """A ``.caffemodel`` whose layers are parsed on access.

    Of several layers with the same name, the last one counts, as in Caffe.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file and finds the layers.

        Raises:
            MissingInputError: no such file.
            FormatError: empty, truncated, text, HDF5, or another message.
        """
        self.path = path
        self._layers: dict[str, tuple[int, memoryview]] = {}
        data = map_binary(path)
        try:
            for number, wire_type, value in wire.fields(data):
                if number not in _FIELDS or (number == 1 and wire_type != wire.LENGTH):
                    raise FormatError("another message")
                if number in _LAYER_CLASSES and isinstance(value, memoryview):
                    self._layers[_name(number, value)] = (number, value)
        except FormatError as error:
            raise not_binary(data[:4096].tobytes(), "NetParameter", path) from error

    @property
    def layers(self) -> list[str]:
        """The names of the layers, in the order of the file."""
        return list(self._layers)

    def blobs(self, name: str) -> list[Any]:
        """Returns the BlobProtos of a layer; an empty list if there is no such layer.

        Raises:
            FormatError: the layer cannot be parsed.
        """
        if name not in self._layers:
            return []
        number, data = self._layers[name]
        layer = _LAYER_CLASSES[number]()
        try:
            layer.ParseFromString(data)
        except DecodeError as error:
            raise FormatError(f"layer {name} cannot be read", path=self.path) from error
        return list(layer.blobs)


def _name(number: int, layer: memoryview) -> str:
    wanted = _LAYER_CLASSES[number].DESCRIPTOR.fields_by_name["name"].number
    for field, _, value in wire.fields(layer):
        if field == wanted and isinstance(value, memoryview):
            return value.tobytes().decode("utf-8", "replace")
    return ""


def write_model(path: Path, net: Any, layers: Iterable[Any]) -> int:
    """Writes a ``.caffemodel`` layer by layer, atomically; returns its size in bytes.

    Args:
        path: the file.
        net: a NetParameter, whose own layers are ignored.
        layers: LayerParameters with their blobs.

    Raises:
        OutputError: larger than 2 GiB, or the file cannot be written.
    """
    head = messages.NetParameter()
    head.CopyFrom(net)
    head.ClearField("layer")
    size = 0
    with atomic_file(path) as aside:
        try:
            with aside.open("wb") as stream:
                size += stream.write(head.SerializeToString(deterministic=True))
                for layer in layers:
                    data = layer.SerializeToString(deterministic=True)
                    prefix = wire.tag(_LAYER, wire.LENGTH) + wire.varint(len(data))
                    size += stream.write(prefix) + stream.write(data)
        except OSError as error:
            raise write_error(path, error) from error
        if size > LIMIT_BYTES:
            raise OutputError(f"cannot write {path}: more than the 2 GiB that protobuf can hold")
    return size
