"""Pixels and label of a record, as Caffe's layers decode it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.data.records.datum import parse_datum, read_head
from irv2caffe.data.records.image import decode_record, open_image
from irv2caffe.errors import FormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOUCHED_BYTES = 512


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read, before it is decoded.

    Attributes:
        key: of the record in its database, or the path of an image.
        value: the Datum; empty for an image file, which is read when it is decoded.
        label: of an image file.
    """

    key: bytes
    value: bytes | memoryview = b""
    label: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded record.

    Attributes:
        pixels: channels x height x width, uint8 or float32; the memory of compressed images is
            height x width x channels.
        label: of its class.
    """

    pixels: NDArray[Any]
    label: int

    @property
    def is_interleaved(self) -> bool:
        """Whether the channels of a pixel lie side by side in memory."""
        return self.pixels.shape[0] > 1 and self.pixels.strides[0] == self.pixels.itemsize


def picture_of(image: NDArray[Any], label: int) -> Picture:
    """The picture of an image, height x width x channels or height x width."""
    planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    return Picture(planes, label)


def decode_datum(value: bytes | memoryview, *, force_color: bool, force_gray: bool) -> Picture:
    """Decodes a record (DataTransformer::Transform of a Datum in data_transformer.cpp).

    Args:
        value: the Datum.
        force_color: decode a compressed image with three channels.
        force_gray: decode it with one; neither keeps the channels of the file.

    Raises:
        ValueError: corrupt, or of 16 bits.
    """
    data = np.frombuffer(value, np.uint8)
    _load(data)
    head = read_head(value)
    label = head.label or 0
    start, size = head.data
    if head.is_encoded:
        return picture_of(
            _decoded(bytes(data[start : start + size]), force_color, force_gray), label
        )
    channels, height, width = head.shape
    wanted = channels * height * width
    if min(head.shape) < 1:
        raise FormatError(f"it has the shape {channels} x {height} x {width}")
    if size:
        _check_size(head.shape, size, wanted)
        values: NDArray[Any] = data[start : start + wanted]
    else:
        _check_size(head.shape, head.num_floats, wanted)
        values = np.array(parse_datum(data.tobytes()).float_data, np.float32)[:wanted]
    return Picture(values.reshape(head.shape), label)


def _load(data: NDArray[np.uint8]) -> None:
    """Loads a record from the disk while other threads run.

    Touching it with Python's lock held would stop all of them. numpy gives the lock away for more
    than 500 elements; those of smaller records lie on few pages.
    """
    data[::_TOUCHED_BYTES].copy()


def _check_size(shape: tuple[int, int, int], held: int, wanted: int) -> None:
    """Refuses a record with too few values, past whose end Caffe reads."""
    if held < wanted:
        sizes = " x ".join(map(str, shape))
        raise FormatError(f"it has the shape {sizes}, but {held:,} values")


def _decoded(data: bytes, force_color: bool, force_gray: bool) -> NDArray[Any]:
    if force_color and force_gray:
        raise FormatError("transform_param sets both force_color and force_gray")
    if force_color or force_gray:
        return open_image(data).decode(gray=force_gray)
    image = decode_record(data)
    if image.dtype != np.uint8:
        raise FormatError("it has 16 bits per channel; Caffe takes 8")
    return image
