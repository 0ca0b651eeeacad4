"""Datum bytes and keys, as convert_imageset writes them (convert_imageset.cpp, util/io.cpp)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from irv2caffe.errors import FormatError
from irv2caffe.proto import messages

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_KEY_BYTES = 511  # LMDB's own limit; convert_imageset dies on longer ones


def record_key(index: int, name: str) -> bytes:
    """The key of the image at a place of the (shuffled) list: ``00000012_class/name.jpg``."""
    return f"{index:08d}_{name}".encode("utf-8", "surrogateescape")


def raw_datum(pixels: NDArray[np.uint8], label: int) -> bytes:
    """A record of raw pixels.

    Args:
        pixels: height x width x channels, channels B, G, R; or height x width.
        label: of the class.
    """
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    channels, height, width = planes.shape
    datum = messages.Datum(
        channels=channels,
        height=height,
        width=width,
        data=planes.tobytes(),
        label=label,
        encoded=False,  # the tool writes the default too
    )
    return bytes(datum.SerializeToString())


def encoded_datum(image_file: bytes, label: int) -> bytes:
    """A record of a compressed image; like the tool's it says nothing of its size."""
    datum = messages.Datum(data=image_file, label=label, encoded=True)
    return bytes(datum.SerializeToString())


def parse_datum(value: bytes) -> Any:
    """The Datum in a record.

    Raises:
        FormatError: not a Datum.
    """
    try:
        return messages.Datum.FromString(value)
    except DecodeError as error:
        raise FormatError("a record is not a Datum", "was it made for Caffe?") from error
