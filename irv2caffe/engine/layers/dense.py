"""Inner products and neuron layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

from irv2caffe.engine.layer import Layer, layer_type

if TYPE_CHECKING:
    from torch import Tensor


@layer_type("InnerProduct", fillers=(("weight_filler", 0.0), ("bias_filler", 0.0)))
def inner_product(layer: Layer, x: Tensor) -> Tensor:
    """A matrix product over all axes from ``axis`` on (inner_product_layer.cpp)."""
    weight = layer.blobs[0].t() if layer.param.transpose else layer.blobs[0]
    bias = layer.blobs[1] if layer.param.bias_term else None
    axis = layer.param.axis % x.dim()
    return functional.linear(x.flatten(axis), weight, bias)


@layer_type("ReLU")
def relu(layer: Layer, x: Tensor) -> Tensor:
    """``max(x, 0) + negative_slope * min(x, 0)`` (relu_layer.cpp)."""
    slope = layer.param.negative_slope
    if slope:
        return functional.leaky_relu(x, slope, inplace=layer.in_place)
    return functional.relu(x, inplace=layer.in_place)
