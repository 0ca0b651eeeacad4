"""From pixels to what a net is fed with, with the arithmetic of Caffe's data layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.errors import UsageError
from irv2caffe.inference.crops import views, whole_image_views

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from irv2caffe.inference.preprocessing import Preprocessing

CROPS = (1, 10, 12, 144)


def feed(
    preprocessing: Preprocessing, pixels: NDArray[Any], *, crops: int = 1
) -> NDArray[np.float32]:
    """The input of a net for one image.

    One crop is the centre, bit for bit as Caffe's data layer cuts it out in phase TEST
    (data_transformer.cpp: (value - mean) * scale in float32, offsets rounded down).

    Args:
        preprocessing: what to do.
        pixels: uint8 or float32, height x width x channels in B, G, R, or height x width, of the
            stored size; for 144 crops the image as it is.
        crops: 1, 10, 12 or 144; see :mod:`irv2caffe.inference.crops`.

    Returns:
        [crops, channels, height, width].

    Raises:
        UnfitImageError: smaller than the input, or another number of channels.
        UsageError: another number of crops, or all crops would be the same.
    """
    if crops not in CROPS:
        raise UsageError(f"--crops {crops}", f"there are {', '.join(map(str, CROPS))}")
    found = views if crops != 144 else whole_image_views
    arrays = [
        (view.astype(np.float32) - mean) * np.float32(preprocessing.scale)
        for view, mean in found(preprocessing, pixels, crops)
    ]
    return np.stack(arrays)
