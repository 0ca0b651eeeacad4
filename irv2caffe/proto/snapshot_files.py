"""``.caffemodel`` files layer by layer: no more than one layer is held in memory twice."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from irv2caffe.atomic import atomic_file, write_error
from irv2caffe.errors import FormatError, MissingInputError, OutputError
from irv2caffe.proto import messages, wire
from irv2caffe.proto.binary import LIMIT_BYTES, not_binary, refuse_other_formats
from irv2caffe.system import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_FIELDS = messages.NetParameter.DESCRIPTOR.fields_by_number
_LAYER = messages.NetParameter.DESCRIPTOR.fields_by_name["layer"].number
# Layers of Caffe 1.0, and those of the versions before, by their field in the net.
_LAYER_CLASSES = {_LAYER: messages.LayerParameter, 2: messages.message_class("V1LayerParameter")}


class ModelFile:
    """The layers of a ``.caffemodel``, found at once, parsed when they are asked for.

    Attributes:
        path: the file.
        layers: names, in the order of the file. Of two layers of one name the last counts, as in
            Caffe, which copies them one after the other.
    """

    def __init__(self, path: Path) -> None:
        """Finds the layers.

        Raises:
            MissingInputError: no such file.
            FormatError: empty, torn, text, HDF5, or another message.
        """
        self.path = path
        self._layers: dict[str, tuple[int, memoryview]] = {}
        data = _mapped(path)
        start = data[:4096].tobytes()
        refuse_other_formats(start, path)
        try:
            for number, wire_type, value in wire.fields(data):
                if number not in _FIELDS or (number == 1 and wire_type != wire.LENGTH):
                    raise FormatError("another message")
                if number in _LAYER_CLASSES and isinstance(value, memoryview):
                    self._layers[_name(number, value)] = (number, value)
        except FormatError as error:
            raise not_binary(start, "NetParameter", path) from error

    @property
    def layers(self) -> list[str]:
        """The names of all layers, in the order of the file."""
        return list(self._layers)

    def blobs(self, name: str) -> list[Any]:
        """The BlobProtos of a layer; none if there is no such layer.

        Raises:
            FormatError: its bytes are not those of a layer.
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


def _mapped(path: Path) -> memoryview:
    """The bytes of a file, which the system reads when they are looked at."""
    if path.is_dir():
        raise MissingInputError(f"{path} is a folder, not a file")
    try:
        with open_regular(path) as stream:
            if path.stat().st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such file", "check the path") from error
    except (OSError, ValueError) as error:
        raise FormatError(f"cannot be read: {error}", path=path) from error


def _name(number: int, layer: memoryview) -> str:
    wanted = _LAYER_CLASSES[number].DESCRIPTOR.fields_by_name["name"].number
    for field, _, value in wire.fields(layer):
        if field == wanted and isinstance(value, memoryview):
            return value.tobytes().decode("utf-8", "replace")
    return ""


def write_model(path: Path, net: Any, layers: Iterable[Any]) -> int:
    """Writes a ``.caffemodel`` layer by layer, in one step; returns its size in bytes.

    Args:
        path: the file.
        net: a NetParameter; all of it but its layers is written.
        layers: LayerParameters with their blobs. An exception from it leaves no file.

    Raises:
        OutputError: beyond protobuf's 2 GiB, or the file cannot be written.
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
