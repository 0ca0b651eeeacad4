"""Initial values of weights (include/caffe/filler.hpp)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from irv2caffe.errors import NetError

if TYPE_CHECKING:
    from collections.abc import Callable


def fill(tensor: Tensor, filler: Any) -> None:
    """Fills a tensor in place as a FillerParameter says, from torch's random numbers.

    Raises:
        NetError: an unknown type.
    """
    if filler.type not in _FILLERS:
        raise NetError(f"unknown filler {filler.type!r}", f"one of {', '.join(_FILLERS)}")
    with torch.no_grad():
        _FILLERS[filler.type](tensor, filler)


def _constant(tensor: Tensor, filler: Any) -> None:
    tensor.fill_(filler.value)


def _fan(tensor: Tensor, filler: Any) -> float:
    """The number that xavier and msra divide by: fan_in, fan_out or their mean."""
    shape = tensor.shape
    fan_in = tensor.numel() / shape[0]
    fan_out = tensor.numel() / shape[1] if len(shape) > 1 else tensor.numel()
    fans = {0: fan_in, 1: fan_out, 2: (fan_in + fan_out) / 2}  # FillerParameter.VarianceNorm
    return float(fans[filler.variance_norm])


def _xavier(tensor: Tensor, filler: Any) -> None:
    limit = math.sqrt(3 / _fan(tensor, filler))
    tensor.uniform_(-limit, limit)


def _msra(tensor: Tensor, filler: Any) -> None:
    tensor.normal_(0, math.sqrt(2 / _fan(tensor, filler)))


def _gaussian(tensor: Tensor, filler: Any) -> None:
    tensor.normal_(filler.mean, filler.std)


def _uniform(tensor: Tensor, filler: Any) -> None:
    tensor.uniform_(filler.min, filler.max)


_FILLERS: dict[str, Callable[[Tensor, Any], None]] = {
    "constant": _constant,
    "gaussian": _gaussian,
    "msra": _msra,
    "uniform": _uniform,
    "xavier": _xavier,
}
