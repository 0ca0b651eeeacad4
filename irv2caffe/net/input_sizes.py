"""Checks the input size of a network.

Caffe's pooling rounds sizes up, its convolution down (pooling_layer.cpp), so that a strided pool
and a strided convolution have equal outputs on odd grids only. The two pools in TF-slim's stem have
no convolution beside them; even grids are possible there, but differ from TensorFlow's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UsageError
from irv2caffe.net.inception_resnet_v2 import NETWORKS
from irv2caffe.net.layers import Builder, GridError
from irv2caffe.net.spec import NetSpec, Top

if TYPE_CHECKING:
    from irv2caffe.config import NetOptions

_SEARCH_RANGE = 64  # good sizes repeat modulo 32


@dataclass(frozen=True)
class Grids:
    """The spatial sizes inside a network.

    Attributes:
        grid17: side of the second grid (17 for a crop of 299).
        grid8: side of the last grid (8 for a crop of 299).
        rounded_up: names of pools whose output is larger than TensorFlow's.
    """

    grid17: int
    grid8: int
    rounded_up: tuple[str, ...]


def grids(options: NetOptions) -> Grids:
    """The grids of a network with the crop of its options.

    Raises:
        GridError: branches differ in size, or a kernel is larger than its grid.
    """
    b = Builder(_SizesOnly("grids"), options)
    features, grid17 = NETWORKS[options.variant](b, Top("data", options.channels, options.crop))
    return Grids(grid17.size, features.size, tuple(b.rounded_up))


class _SizesOnly(NetSpec):
    """Computes the sizes of tops and keeps no layers."""

    def layer(
        self,
        layer_type: str,  # noqa: ARG002
        name: str,
        *bottoms: Top,  # noqa: ARG002
        channels: int,
        size: int = 0,
        **fields: Any,  # noqa: ARG002
    ) -> Top:
        return Top(name, channels, size)


def check_crop(options: NetOptions) -> Grids:
    """Refuses crops with which Caffe would abort, or that the auxiliary classifier cannot have.

    Raises:
        UsageError: with the nearest good sizes as the hint.
    """
    try:
        found = grids(options)
    except GridError as error:
        raise UsageError(
            f"--crop {options.crop}: Caffe would abort, its pooling rounds up: {error.message}",
            f"the nearest good sizes for --variant {options.variant} are {_nearest(options)}",
        ) from error
    if options.aux and not _fits_aux(found):
        raise UsageError(
            f"--aux needs a second grid of 5, 8, 11, 14, 17 ...; --crop {options.crop} gives "
            f"{found.grid17}",
            f"the nearest crops with one are {_nearest(options)}",
        )
    return found


def _nearest(options: NetOptions) -> str:
    below = range(options.crop - 1, max(0, options.crop - _SEARCH_RANGE), -1)
    above = range(options.crop + 1, options.crop + 4 * _SEARCH_RANGE)
    found = [next((n for n in sizes if _is_exact(options, n)), None) for sizes in (below, above)]
    return " and ".join(str(size) for size in found if size is not None)


def largest_crop(options: NetOptions, most: int) -> int | None:
    """The largest crop up to ``most`` with the same grids as TensorFlow's; None without one.

    Of two neighbours it is the smaller: the larger's last row and column are read by no window of
    the first convolution.
    """
    for crop in range(most, 0, -1):
        if _is_exact(options, crop):
            return crop - 1 if crop > 1 and _is_exact(options, crop - 1) else crop
    return None


def _is_exact(options: NetOptions, crop: int) -> bool:
    try:
        found = grids(replace(options, crop=crop))
    except GridError:
        return False
    return not found.rounded_up and (not options.aux or _fits_aux(found))


def _fits_aux(found: Grids) -> bool:
    """Whether the auxiliary classifier's 5x5 pool with stride 3 covers the grid."""
    return found.grid17 >= 5 and (found.grid17 - 5) % 3 == 0
