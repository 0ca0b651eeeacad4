"""Inner products and embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

from irv2caffe.engine.layer import Layer, layer_type
from irv2caffe.engine.layers.labels import check_range

if TYPE_CHECKING:
    from torch import Tensor

_FILLERS = (("weight_filler", 0.0), ("bias_filler", 0.0))


@layer_type("InnerProduct", fillers=_FILLERS)
def inner_product(layer: Layer, x: Tensor) -> Tensor:
    """A matrix product over all axes from ``axis`` on (inner_product_layer.cpp)."""
    weight, *rest = layer.blobs
    if layer.settings.transpose:
        weight = weight.t()
    axis = layer.settings.axis % x.dim()
    return functional.linear(x.flatten(axis), weight, rest[0] if rest else None)


@layer_type("Embed", fillers=_FILLERS)
def embed(layer: Layer, x: Tensor) -> Tensor:
    """A row of the weight for each index, plus a bias (embed_layer.cpp)."""
    weight, *rest = layer.blobs
    index = x.detach().long()
    check_range(layer, index, weight.shape[0])
    top = functional.embedding(index, weight)
    return top + rest[0] if rest else top
