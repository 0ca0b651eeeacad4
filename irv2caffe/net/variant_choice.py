"""Chooses a variant and its crop for the size of the stored images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.config import net_options
from irv2caffe.errors import UsageError
from irv2caffe.net.input_sizes import largest_crop

if TYPE_CHECKING:
    from irv2caffe.config.derive import Derived

AUTO = "auto"
# The side of the images from which each variant is taken. small32 keeps the grids of a 32x32 image,
# small75 halves them once, paper and slim (half and all of the blocks) three times.
_FROM = (("small32", 1), ("small75", 64), ("paper", 139), ("slim", 235))
_LARGEST = 299  # the crop that slim and paper were published with


def choose_variant(side: int, *, aux: bool = False) -> Derived:
    """The variant for images of a size, and its largest crop in them.

    Args:
        side: the shorter side of the stored images, in pixels.
        aux: whether the crop must suit the auxiliary classifier.

    Returns:
        ``variant`` and ``crop``, each with the reason.

    Raises:
        UsageError: images that are too small for any variant.
    """
    name = next(name for name, least in reversed(_FROM) if side >= least)
    crop = largest_crop(net_options(variant=name, aux=aux), min(side, _LARGEST))
    if crop is None:
        raise UsageError(
            f"--variant auto: images of {side}x{side} pixels are too small for every network",
            "build the database again with make-lmdb --resize 32",
        )
    why = f"images of {side} pixels"
    return {"variant": (name, f"for {why}"), "crop": (crop, f"largest of {name} in {why}")}
