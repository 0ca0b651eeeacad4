"""Checks the mean image that a Data layer subtracts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.errors import FormatError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_array, read_binary

if TYPE_CHECKING:
    from pathlib import Path


def check_mean_file(path: Path, crop: int, channels: int = 3) -> None:
    """Refuses a mean image that Caffe would refuse, or that is smaller than the crop.

    Caffe subtracts it before the crop (data_transformer.cpp), so it has the size of the records.

    Args:
        path: a .binaryproto as compute_image_mean writes it.
        crop: side of the input.
        channels: of the images.

    Raises:
        MissingInputError: no such file.
        FormatError: not a BlobProto of shape 1xCHANNELSxHEIGHTxWIDTH.
    """
    shape = read_array(read_binary(path, messages.BlobProto)).shape
    shape = shape[1:] if len(shape) == 4 and shape[0] == 1 else shape
    if len(shape) != 3 or shape[0] != channels:
        raise FormatError(f"a mean of shape {shape}, not {channels} x height x width", path=path)
    if min(shape[1:]) < crop:
        raise FormatError(
            f"a mean image of {shape[2]}x{shape[1]} is smaller than the crop of {crop}",
            "it has the size of the records: compute it from the training database",
            path=path,
        )
