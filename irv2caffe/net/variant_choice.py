"""Chooses a variant and its crop for the size of the stored images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.errors import UsageError
from irv2caffe.net.input_sizes import largest_crop

if TYPE_CHECKING:
    from irv2caffe.config import NetOptions
    from irv2caffe.config.derive import Derived

AUTO = "auto"
# The side of the images from which each variant is taken. small32 keeps the grids of a 32x32 image,
# small75 halves them once, paper and slim (half and all of the blocks) three times.
_FROM = (("small32", 1), ("small75", 64), ("paper", 139), ("slim", 235))
_LARGEST = 299  # the crop that slim and paper were published with


def choose_variant(side: int) -> Derived:
    """The variant for images whose shorter side has this many pixels, with the reason."""
    name = next(name for name, least in reversed(_FROM) if side >= least)
    return {"variant": (name, f"for images of {side} pixels")}


def choose_crop(options: NetOptions, side: int) -> Derived:
    """The largest crop of a network in images of a size, with the reason.

    Args:
        options: of the network, whose auxiliary classifier may need other crops.
        side: the shorter side of the stored images, in pixels.

    Raises:
        UsageError: images that are too small for this network.
    """
    crop = largest_crop(options, min(side, _LARGEST))
    if crop is None:
        smaller = "build the database again with make-lmdb --resize"
        raise UsageError(
            f"images of {side}x{side} pixels are too small for --variant {options.variant}",
            f"--variant auto takes a network for their size; or {smaller}",
        )
    return {"crop": (crop, f"largest of {options.variant} in images of {side} pixels")}
