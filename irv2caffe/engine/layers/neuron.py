"""Layers that compute each value of the top from one value of the bottom."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from irv2caffe.engine.layer import Layer, layer_type
from irv2caffe.engine.layers.gradients import with_caffes_slope

if TYPE_CHECKING:
    from torch import Tensor

    from irv2caffe.shapes.infer import LayerInfo


@layer_type("ReLU")
def relu(layer: Layer, x: Tensor) -> Tensor:
    """``max(x, 0) + negative_slope * min(x, 0)``; the slope at 0 is the negative one.

    Source: relu_layer.cpp.
    """
    slope = layer.settings.negative_slope
    if not slope:
        return functional.relu(x, inplace=layer.in_place)
    if slope < 0 and layer.info.in_place:
        return with_caffes_slope(
            layer,
            x,
            lambda x: functional.leaky_relu(x, slope),
            lambda x, _: torch.where(x > 0, 1.0, slope),
        )
    return functional.leaky_relu(x, slope, inplace=layer.in_place)


@layer_type("PReLU", fillers=(("filler", 0.25),))
def prelu(layer: Layer, x: Tensor) -> Tensor:
    """ReLU with a learned negative slope for each channel or for all (prelu_layer.cpp)."""
    return functional.prelu(x, layer.blobs[0].flatten().to(x.dtype))


@layer_type("ELU")
def elu(layer: Layer, x: Tensor) -> Tensor:
    """``x`` above 0, else ``alpha * (exp(x) - 1)`` (elu_layer.cpp)."""
    alpha = layer.settings.alpha
    if alpha < 0 and layer.info.in_place:
        return with_caffes_slope(
            layer,
            x,
            lambda x: functional.elu(x, alpha),
            lambda x, y: torch.where(x > 0, 1.0, alpha + y),
        )
    return functional.elu(x, alpha)


@layer_type("Sigmoid")
def sigmoid(layer: Layer, x: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))`` (sigmoid_layer.cpp)."""
    return torch.sigmoid(x)


@layer_type("TanH")
def tanh(layer: Layer, x: Tensor) -> Tensor:
    """The hyperbolic tangent (tanh_layer.cpp)."""
    return torch.tanh(x)


@layer_type("AbsVal")
def abs_val(layer: Layer, x: Tensor) -> Tensor:
    """The absolute value, whose slope at 0 is 0 (absval_layer.cpp)."""
    return x.abs()


@layer_type("BNLL")
def bnll(layer: Layer, x: Tensor) -> Tensor:
    """``log(1 + exp(x))`` (bnll_layer.cpp)."""
    if layer.info.in_place:
        return with_caffes_slope(layer, x, functional.softplus, lambda x, _: torch.sigmoid(x))
    return functional.softplus(x)


def _clip_is_empty(info: LayerInfo) -> str:
    return "min is above max" if info.proto.clip_param.min > info.proto.clip_param.max else ""


@layer_type("Clip", unsupported=_clip_is_empty)
def clip(layer: Layer, x: Tensor) -> Tensor:
    """``x`` between ``min`` and ``max``; the slope at both is 1 (clip_layer.cpp).

    In place, Caffe's backward pass finds all values inside and passes all gradients on.
    """
    least, most = layer.settings.min, layer.settings.max
    if layer.info.in_place:
        return with_caffes_slope(
            layer, x, lambda x: x.clamp(least, most), lambda x, _: torch.ones_like(x)
        )
    return x.clamp(least, most)


@layer_type("Swish")
def swish(layer: Layer, x: Tensor) -> Tensor:
    """``x * sigmoid(beta * x)`` (swish_layer.cpp)."""
    beta = layer.settings.beta
    return functional.silu(x) if beta == 1 else x * torch.sigmoid(beta * x)


@layer_type("Threshold")
def threshold(layer: Layer, x: Tensor) -> Tensor:
    """1 above the threshold, else 0, without a gradient (threshold_layer.cpp)."""
    return (x > layer.settings.threshold).to(x.dtype)


@layer_type("Power")
def power(layer: Layer, x: Tensor) -> Tensor:
    """``(shift + scale * x) ** power`` (power_layer.cpp).

    Caffe's derivative is ``power * scale * y / (shift + scale * x)``, NaN where that divides by 0,
    unless the power is 0, 1 or 2. In place it loses the gradient of the top.
    """
    exponent, scale, shift = (getattr(layer.settings, n) for n in ("power", "scale", "shift"))
    if exponent == 0 or scale == 0:
        return torch.full_like(x, 1.0 if exponent == 0 else _power(shift, exponent))
    if not layer.info.in_place and exponent in {1, 2}:
        base = _affine(x, scale, shift)
        return base if exponent == 1 else base.square()

    def slope(x: Tensor, y: Tensor) -> Tensor:
        base = _affine(x, scale, shift)
        if exponent == 1:
            return torch.full_like(x, scale)
        return exponent * scale * (base if exponent == 2 else y / base)

    return with_caffes_slope(
        layer, x, lambda x: _affine(x, scale, shift).pow(exponent), slope, loses_gradient=True
    )


def _affine(x: Tensor, scale: float, shift: float) -> Tensor:
    return x * scale + shift if shift else x * scale


def _power(base: float, exponent: float) -> float:
    """C's pow for a base that may be 0 or below."""
    try:
        return math.pow(base, exponent)
    except (ValueError, ZeroDivisionError):
        return math.inf if base == 0 else math.nan


@layer_type("Exp")
def exp(layer: Layer, x: Tensor) -> Tensor:
    """``base ** (shift + scale * x)``; base -1 stands for e (exp_layer.cpp)."""
    base, scale, shift = (getattr(layer.settings, n) for n in ("base", "scale", "shift"))
    log_base = 1.0 if base == -1 else math.log(base)
    y = torch.exp(x * (log_base * scale))
    return y * math.exp(log_base * shift) if shift else y


@layer_type("Log")
def log(layer: Layer, x: Tensor) -> Tensor:
    """The logarithm of ``shift + scale * x`` to a base; base -1 stands for e (log_layer.cpp).

    In place, Caffe takes the derivative at the top and loses the gradient of the top.
    """
    base, scale, shift = (getattr(layer.settings, n) for n in ("base", "scale", "shift"))
    factor = 1.0 if base == -1 else 1 / math.log(base)

    def value(x: Tensor) -> Tensor:
        return torch.log(_affine(x, scale, shift)) * factor

    if layer.info.in_place:

        def slope(x: Tensor, _: Tensor) -> Tensor:
            return scale * factor / _affine(x, scale, shift)

        return with_caffes_slope(layer, x, value, slope, loses_gradient=True)
    return value(x)


def _drops_all(info: LayerInfo) -> str:
    ratio = info.proto.dropout_param.dropout_ratio
    return "" if 0 <= ratio < 1 else f"dropout_ratio {ratio:g} is not below 1"


@layer_type("Dropout", unsupported=_drops_all)
def dropout(layer: Layer, x: Tensor) -> Tensor:
    """In TRAIN, values set to 0 at random and the rest divided by the share kept.

    Source: dropout_layer.cpp.
    """
    if layer.phase == "TEST":
        return x
    return functional.dropout(x, layer.settings.dropout_ratio, inplace=layer.in_place)
