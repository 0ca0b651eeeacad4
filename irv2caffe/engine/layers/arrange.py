"""Layers that join, cut, reshape and reduce blobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from irv2caffe.engine.layer import Layer, Tops, layer_type
from irv2caffe.engine.layers.gradients import UnstableProduct, apply, product

if TYPE_CHECKING:
    from torch import Tensor

    from irv2caffe.shapes.infer import LayerInfo


@layer_type("Concat")
def concat(layer: Layer, *bottoms: Tensor) -> Tensor:
    """The bottoms one after the other along an axis (concat_layer.cpp)."""
    return torch.cat(bottoms, _axis(layer, "concat_dim"))


@layer_type("Slice")
def slice_(layer: Layer, x: Tensor) -> Tops:
    """Pieces of the bottom along an axis, equal or between slice points (slice_layer.cpp)."""
    axis = _axis(layer, "slice_dim")
    start, tops = 0, []
    for shape in layer.top_shapes(x):
        tops.append(x.narrow(axis, start, shape[axis]))
        start += shape[axis]
    return tuple(tops)


def _axis(layer: Layer, older_name: str) -> int:
    settings = layer.settings
    axis: int = getattr(settings, older_name if older_name in settings.given else "axis")
    return axis


@layer_type("Split")
def split(layer: Layer, x: Tensor) -> Tops:
    """The bottom for each top; their gradients are added (split_layer.cpp)."""
    return (x,) * len(layer.info.tops)


@layer_type("Silence")
def silence(layer: Layer, *bottoms: Tensor) -> Tops:
    """Takes bottoms so that they are no outputs of the net; no tops (silence_layer.cpp)."""
    return ()


@layer_type("Crop")
def crop(layer: Layer, x: Tensor, reference: Tensor) -> Tensor:
    """The part of the first bottom that has the second's shape, from ``axis`` on (crop_layer.cpp).

    It starts at ``offset``, given once or for each axis; 0 by default.
    """
    axis = layer.settings.axis % x.dim()
    offsets = layer.settings.offset or (0,)
    if len(offsets) == 1:
        offsets *= x.dim() - axis
    for at, offset in enumerate(offsets, axis):
        x = x.narrow(at, offset, reference.shape[at])
    return x


@layer_type("Flatten")
def flatten(layer: Layer, x: Tensor) -> Tensor:
    """The axes from ``axis`` to ``end_axis`` in one (flatten_layer.cpp)."""
    return x.flatten(layer.settings.axis, layer.settings.end_axis)


@layer_type("Reshape")
def reshape(layer: Layer, x: Tensor) -> Tensor:
    """The same values in another shape (reshape_layer.cpp)."""
    return x.reshape(tuple(layer.top_shapes(x)[0]))


@layer_type("Tile")
def tile(layer: Layer, x: Tensor) -> Tensor:
    """Copies one after the other along an axis (tile_layer.cpp)."""
    return torch.cat((x,) * layer.settings.tiles, layer.settings.axis)


def _in_place(info: LayerInfo) -> str:
    return "in place, where Caffe overwrites the first bottom" if info.in_place else ""


@layer_type("Eltwise", unsupported=_in_place)
def eltwise(layer: Layer, *bottoms: Tensor) -> Tensor:
    """A sum with coefficients, a product or a maximum of blobs of one shape (eltwise_layer.cpp).

    Of equal values the second one is the maximum of the first two, else the earlier one. Without
    ``stable_prod_grad`` the gradients of a product divide by the bottoms.
    """
    settings = layer.settings
    if settings.operation == "PROD":
        return product(*bottoms) if settings.stable_prod_grad else apply(UnstableProduct, *bottoms)
    top, second, *rest = bottoms
    if settings.operation == "MAX":
        top = torch.where(top > second, top, second)
        for x in rest:
            top = torch.where(x > top, x, top)
        return top
    coeffs = settings.coeff or (1.0,) * len(bottoms)
    if coeffs[0] != 1:
        top = top * coeffs[0]
    for x, coeff in zip(bottoms[1:], coeffs[1:], strict=True):
        top = torch.add(top, x, alpha=coeff)
    return top


@layer_type("Reduction")
def reduction(layer: Layer, x: Tensor) -> Tensor:
    """``coeff`` times the sum, mean, sum of absolute values or squares (reduction_layer.cpp).

    Over all axes from ``axis`` on.
    """
    rows = x.flatten(layer.settings.axis).float()
    if layer.settings.operation == "ASUM":
        rows = rows.abs()
    elif layer.settings.operation == "SUMSQ":
        rows = rows.square()
    top = rows.mean(-1) if layer.settings.operation == "MEAN" else rows.sum(-1)
    return top * layer.settings.coeff


@layer_type("ArgMax")
def arg_max(layer: Layer, x: Tensor) -> Tensor:
    """The places of the ``top_k`` largest values, the last place first among equals.

    Along an axis, or of each item, whose values come second with ``out_max_val``; along an axis
    they replace the places. No gradient. Source: argmax_layer.cpp.
    """
    settings = layer.settings
    has_axis = "axis" in settings.given
    rows = x.detach() if has_axis else x.detach().flatten(1)
    axis = settings.axis if has_axis else 1
    values, places = rows.flip(axis).sort(dim=axis, descending=True, stable=True)
    values = values.narrow(axis, 0, settings.top_k)
    places = (rows.shape[axis] - 1 - places.narrow(axis, 0, settings.top_k)).to(x.dtype)
    if has_axis:
        return values if settings.out_max_val else places
    parts = (places, values) if settings.out_max_val else (places,)
    return torch.stack(parts, 1).reshape(tuple(layer.top_shapes(x)[0]))
