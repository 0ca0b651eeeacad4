"""Images of a list file, as ImageData layers read them (image_data_layer.cpp)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.data.records.image import open_image, resize
from irv2caffe.data.records.items import Item, Items
from irv2caffe.data.records.record import read_file
from irv2caffe.engine.data.order import in_order, places
from irv2caffe.engine.data.pictures import Picture, Record, picture_of
from irv2caffe.errors import FormatError, InputError, MissingInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from irv2caffe.engine.data.order import Order, Share

_NUMBER = re.compile(rb"[ \t\v\f\r]*([+-]?[0-9]+)")
_INT32 = (-(1 << 31), (1 << 31) - 1)


class ImageListRecords:
    """The images that an ImageData layer reads.

    Attributes:
        path: of the list.
    """

    def __init__(self, layer: Any) -> None:
        """Reads the list.

        Raises:
            InputError: no such list, or an empty one.
        """
        param = layer.image_data_param
        self.path = Path(param.source)
        self._root = param.root_folder
        self._size = (param.new_width, param.new_height)
        self._gray = not param.is_color
        self._items = _read_list(self.path)

    def __len__(self) -> int:
        return len(self._items)

    def records(
        self, share: Share, order: Order | None, wrapped: Callable[[], None]
    ) -> Generator[Record]:
        """The images of a process, without end; see :meth:`DatabaseRecords.records`."""
        del wrapped  # Caffe says it in debug builds only
        for place in places(len(self), share, order or in_order(len(self))):
            yield self._record(place)

    def _record(self, place: int) -> Record:
        return Record(self._items.name_bytes(place), label=self._items.labels[place])

    def decode(self, record: Record) -> Picture:
        """Reads, decodes and resizes an image (ReadImageToCVMat in util/io.cpp).

        Raises:
            ValueError: not an image.
            OSError: the disk fails.
        """
        name = record.key.decode("utf-8", "surrogateescape")
        file = open_image(read_file(self._root + name), exactly_like_caffe=True)
        image = file.decode(gray=self._gray)
        if all(self._size):
            image = resize(image, self._size, "squash", "linear")
        return picture_of(image, record.label)

    def close(self) -> None:
        """Nothing is open."""


def _read_list(path: Path) -> Items:
    """The lines of a list: all before the last blank is the path, the rest the label."""
    items = Items()
    try:
        with path.open("rb") as lines:
            for line in lines:
                name, _, label = line.rstrip(b"\n").rpartition(b" ")
                items.add(Item((name or label).decode("utf-8", "surrogateescape"), _number(label)))
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such list of images") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if not len(items):
        raise FormatError("a list without images", path=path)
    return items


def _number(text: bytes) -> int:
    """The number that C's atoi reads."""
    match = _NUMBER.match(text)
    return min(max(int(match[1][:12]), _INT32[0]), _INT32[1]) if match else 0
