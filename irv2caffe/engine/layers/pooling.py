"""Pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from irv2caffe.engine.layer import Layer, Tops, layer_type
from irv2caffe.shapes.layer_types.spatial import pool_size

if TYPE_CHECKING:
    from torch import Tensor

    from irv2caffe.shapes.infer import LayerInfo

Pair = tuple[int, int]


def _unsupported(info: LayerInfo) -> str:
    is_stochastic = info.proto.pooling_param.pool == info.proto.pooling_param.STOCHASTIC
    return "pool: STOCHASTIC, which Caffe has on GPUs only" if is_stochastic else ""


@layer_type("Pooling", unsupported=_unsupported)
def pooling(layer: Layer, x: Tensor) -> Tops:
    """The maximum or mean of each window (pooling_layer.cpp).

    The number of windows is rounded up, or down by ``round_mode``; if there is padding, a last
    window that begins behind the image is dropped. The mean divides by the number of values that
    the window covers, those in the padding included, those further out not. Of equal maxima the
    first one gets the gradient. A second top has the places of the maxima in their planes.

    Unlike here, a NaN is never a maximum in Caffe: it leaves NaNs out.
    """
    settings = layer.settings
    size = (x.shape[2], x.shape[3])
    if settings.global_pooling and settings.pool == "AVE":
        return x.mean((2, 3), keepdim=True)
    kernel, stride, pad = _window(layer, size)
    is_floor = settings.round_mode == "FLOOR"
    axes = zip(size, kernel, stride, pad, strict=True)
    out = tuple(pool_size(*axis, floor=is_floor, clip=any(pad)) for axis in axes)
    is_native = _is_native(size, out, kernel, stride, pad)
    if settings.pool == "AVE":
        if is_native:
            return functional.avg_pool2d(x, kernel, stride, pad, ceil_mode=not is_floor)
        return _average(layer, x, kernel, stride, pad, (out[0], out[1]))
    if not is_native:
        lowest = torch.finfo(x.dtype).min
        x = functional.pad(x, _padding(size, out, kernel, stride, pad), value=lowest)
    native_pad = pad if is_native else (0, 0)
    if len(layer.info.tops) == 1:
        return functional.max_pool2d(x, kernel, stride, native_pad, ceil_mode=not is_floor)
    top, places = functional.max_pool2d(
        x, kernel, stride, native_pad, ceil_mode=not is_floor, return_indices=True
    )
    return top, _mask(places, x.shape[3], size, (0, 0) if is_native else pad).to(top.dtype)


def _window(layer: Layer, size: Pair) -> tuple[Pair, Pair, Pair]:
    """Kernel, stride and padding."""
    settings = layer.settings
    if settings.global_pooling:
        return size, (1, 1), (0, 0)

    def pair(single: str, name: str) -> Pair:
        if f"{name}_h" in settings.given:
            return getattr(settings, f"{name}_h"), getattr(settings, f"{name}_w")
        return (getattr(settings, single),) * 2

    return pair("kernel_size", "kernel"), pair("stride", "stride"), pair("pad", "pad")


def _is_native(size: Pair, out: tuple[int, ...], kernel: Pair, stride: Pair, pad: Pair) -> bool:
    """Whether torch's pooling takes the padding and has the same windows.

    It takes half a window of padding, and always drops a window that lies outside.
    """
    return all(
        2 * p <= k and (o - 1) * s < n + p
        for n, o, k, s, p in zip(size, out, kernel, stride, pad, strict=True)
    )


def _padding(
    size: Pair, out: tuple[int, ...], kernel: Pair, stride: Pair, pad: Pair
) -> tuple[int, int, int, int]:
    """What to add left, right, above and below to hold all windows."""
    after = [
        max(0, (o - 1) * s + k - p - n)
        for n, o, k, s, p in zip(size, out, kernel, stride, pad, strict=True)
    ]
    return pad[1], after[1], pad[0], after[0]


def _average(layer: Layer, x: Tensor, kernel: Pair, stride: Pair, pad: Pair, out: Pair) -> Tensor:
    """The mean where torch's pooling has other windows."""
    size = (x.shape[2], x.shape[3])
    if "window_sizes" not in layer.constants:
        sides = [
            torch.tensor([min(at * s - p + k, n + p) - (at * s - p) for at in range(o)])
            for n, o, k, s, p in zip(size, out, kernel, stride, pad, strict=True)
        ]
        layer.constants["window_sizes"] = torch.outer(*sides).to(x.device, torch.float32)
    x = functional.pad(x, _padding(size, out, kernel, stride, pad))
    sums = functional.avg_pool2d(x, kernel, stride, divisor_override=1)
    return sums / layer.constants["window_sizes"].to(x.dtype)


def _mask(places: Tensor, padded_width: int, size: Pair, pad: Pair) -> Tensor:
    """Places in the image from places in the padded image; -1 outside of it."""
    row, column = places // padded_width - pad[0], places % padded_width - pad[1]
    is_inside = (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
    return torch.where(is_inside, row * size[1] + column, -1)
