"""Initial values of weights (include/caffe/filler.hpp)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from irv2caffe.errors import NetError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable


def fill(tensor: Tensor, filler: Any) -> None:
    """Fills a tensor in place as a FillerParameter says, from torch's random numbers.

    Raises:
        NetError: Caffe would refuse the filler.
    """
    if filler.type not in _FILLERS:
        hint = did_you_mean(filler.type, _FILLERS) or f"one of {', '.join(_FILLERS)}"
        raise NetError(f"unknown filler {filler.type!r}", hint)
    _check(filler.sparse == -1 or filler.type == "gaussian", "sparse is for gaussian fillers only")
    with torch.no_grad():
        _FILLERS[filler.type](tensor, filler)


def _check(holds: bool, problem: str) -> None:
    if not holds:
        raise NetError(problem)


def _constant(tensor: Tensor, filler: Any) -> None:
    tensor.fill_(filler.value)


def _uniform(tensor: Tensor, filler: Any) -> None:
    _check(filler.min <= filler.max, f"uniform filler: min {filler.min} is above max {filler.max}")
    tensor.uniform_(filler.min, filler.max)


def _gaussian(tensor: Tensor, filler: Any) -> None:
    """Normally distributed; ``sparse`` is the mean number of weights per input that are kept."""
    _check(filler.std > 0, f"gaussian filler: std {filler.std} must be positive")
    _check(filler.sparse >= -1, f"gaussian filler: sparse {filler.sparse} is below -1")
    tensor.normal_(filler.mean, filler.std)
    if filler.sparse >= 0:
        _check(tensor.dim() > 0, "gaussian filler: sparse needs a weight with axes")
        share = filler.sparse / tensor.shape[0]
        _check(share <= 1, f"gaussian filler: sparse {filler.sparse} of {tensor.shape[0]} outputs")
        tensor.mul_(torch.empty_like(tensor).bernoulli_(share))


def _positive_unitball(tensor: Tensor, filler: Any) -> None:  # noqa: ARG001
    """Positive numbers; those of each output add up to 1."""
    tensor.uniform_(0, 1)
    tensor.div_(tensor.view(len(tensor), -1).sum(1).view(-1, *[1] * (tensor.dim() - 1)))


def _fan(tensor: Tensor, filler: Any) -> float:
    """The number that xavier and msra divide by: fan_in, fan_out or their mean.

    Caffe takes the first axis for outputs and the second for inputs, also in Deconvolution and in
    inner products with ``transpose``, where they are the other way round.
    """
    shape = tensor.shape
    _check(len(shape) > 0, f"{filler.type} filler: needs a weight with axes")
    fan_in = tensor.numel() // shape[0]
    fan_out = tensor.numel() // shape[1] if len(shape) > 1 else tensor.numel()
    fans = {
        filler.FAN_IN: fan_in,
        filler.FAN_OUT: fan_out,
        filler.AVERAGE: (fan_in + fan_out) / 2,
    }
    return float(fans[filler.variance_norm])


def _xavier(tensor: Tensor, filler: Any) -> None:
    limit = math.sqrt(3 / _fan(tensor, filler))
    tensor.uniform_(-limit, limit)


def _msra(tensor: Tensor, filler: Any) -> None:
    tensor.normal_(0, math.sqrt(2 / _fan(tensor, filler)))


def _bilinear(tensor: Tensor, filler: Any) -> None:  # noqa: ARG001
    """The weights of an interpolation, for a Deconvolution that enlarges an image."""
    square = tensor.dim() == 4 and tensor.shape[2] == tensor.shape[3]
    _check(square, "bilinear filler: needs a weight with 4 axes and a square kernel")
    size = tensor.shape[3]
    half = math.ceil(size / 2)
    centre = (size - 1) / (2 * half)
    line = 1 - (torch.arange(size) / half - centre).abs()
    tensor.copy_(torch.outer(line, line).expand_as(tensor))


_FILLERS: dict[str, Callable[[Tensor, Any], None]] = {
    "bilinear": _bilinear,
    "constant": _constant,
    "gaussian": _gaussian,
    "msra": _msra,
    "positive_unitball": _positive_unitball,
    "uniform": _uniform,
    "xavier": _xavier,
}
