"""Pixels of stored records, as Caffe decodes them in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.data.records.datum import parse_datum, read_head
from irv2caffe.data.records.headers import image_kind
from irv2caffe.errors import FormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from irv2caffe.data.records.datum import DatumHead


def encoding_of(head: DatumHead, value: bytes | memoryview) -> str:
    """The encoding of a record: ``raw``, ``float``, ``jpg``, ``png`` ..., or ``nothing``."""
    if head.is_encoded:
        start, size = head.data
        return image_kind(value[start : start + min(size, 32)]) or "unknown"
    if head.data[1]:
        return "raw"
    return "float" if head.num_floats else "nothing"


def stored_pixels(value: bytes) -> NDArray[Any]:
    """The image of a record, as Caffe decodes it: height x width x channels, or height x width.

    Raises:
        FormatError: not a Datum, or one whose data does not match its shape.
        ValueError: a compressed image that cannot be decoded.
    """
    head = read_head(value)
    if head.is_encoded:
        from irv2caffe.data.records.image import decode_record

        start, size = head.data
        return decode_record(bytes(value[start : start + size]))
    channels, height, width = head.shape
    wanted = channels * height * width
    if min(head.shape) < 1:
        raise FormatError(f"a record of {channels} x {height} x {width} values")
    if head.data[1] == wanted:
        start = head.data[0]
        planes: NDArray[Any] = np.frombuffer(value, np.uint8, wanted, start)
    elif head.num_floats == wanted:
        planes = np.array(parse_datum(value).float_data, np.float32)
    else:
        held = head.data[1] or head.num_floats
        raise FormatError(
            f"a record of {channels} x {height} x {width} values holds {held:,} of them"
        )
    image = planes.reshape(channels, height, width).transpose(1, 2, 0)
    return image[:, :, 0] if channels == 1 else np.ascontiguousarray(image)
