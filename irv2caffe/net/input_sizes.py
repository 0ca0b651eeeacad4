"""Which sizes of input a network can have.

Caffe's pooling rounds up where convolution rounds down (pooling_layer.cpp), so that a strided pool
and a strided convolution beside it meet in Concat only on odd grids. Slim's stem has two pools with
nothing beside them; there an even grid gives a net that runs, on other grids than TensorFlow's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UsageError
from irv2caffe.net.inception_resnet_v2 import NETWORKS, builder
from irv2caffe.net.layers import GridError
from irv2caffe.net.spec import NetSpec, Top

if TYPE_CHECKING:
    from irv2caffe.config import NetOptions

_SEARCH = 64  # sizes repeat modulo 32


@dataclass(frozen=True)
class Grids:
    """Where a crop leads to.

    Attributes:
        grid17: side of the second grid (17 at 299 pixels).
        grid8: side of the last grid (8 at 299 pixels).
        rounded_up: pools whose grid is larger than TensorFlow's.
    """

    grid17: int
    grid8: int
    rounded_up: tuple[str, ...]


def grids(options: NetOptions) -> Grids:
    """The grids of a network at its crop.

    Raises:
        GridError: branches do not meet, or a window is larger than its grid.
    """
    b = builder(_Sketch("grids"), options)
    features, grid17 = NETWORKS[options.variant](b, Top("data", 3, options.crop), options)
    return Grids(grid17.size, features.size, tuple(b.rounded_up))


class _Sketch(NetSpec):
    """Keeps no layers: only the sizes of the tops are wanted."""

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
    """Refuses crops at which Caffe would abort, and those where the auxiliary head differs.

    Raises:
        UsageError: names the nearest good sizes.
    """
    try:
        found = grids(options)
    except GridError as error:
        raise UsageError(
            f"--crop {options.crop}: Caffe would abort, its pooling rounds up: {error.message}",
            f"the nearest good sizes for --variant {options.variant} are {_nearest(options)}",
        ) from error
    if options.aux and (found.grid17 < 5 or (found.grid17 - 5) % 3):
        raise UsageError(
            f"--aux needs a second grid of 5, 8, 11, 14, 17 ...; --crop {options.crop} gives "
            f"{found.grid17}",
            f"the nearest crops with one are {_nearest(options)}",
        )
    return found


def _nearest(options: NetOptions) -> str:
    below = range(options.crop - 1, max(0, options.crop - _SEARCH), -1)
    above = range(options.crop + 1, options.crop + 4 * _SEARCH)
    found = [next((n for n in sizes if _is_exact(options, n)), None) for sizes in (below, above)]
    return " and ".join(str(size) for size in found if size is not None)


def _is_exact(options: NetOptions, crop: int) -> bool:
    try:
        found = grids(replace(options, crop=crop))
    except GridError:
        return False
    if options.aux and (found.grid17 < 5 or (found.grid17 - 5) % 3):
        return False
    return not found.rounded_up
