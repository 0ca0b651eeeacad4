"""Layers without bottoms that need no data: DummyData and Parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from irv2caffe.engine.fillers import fill
from irv2caffe.engine.layer import Layer, Tops, layer_type
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from torch import Tensor


@layer_type("DummyData")
def dummy_data(layer: Layer) -> Tops:
    """Tops filled by ``data_filler``, given once or for each; 0 without (dummy_data_layer.cpp).

    Constant tops are filled once, others in each pass.
    """
    fillers = list(layer.param.data_filler) or [messages.message_class("FillerParameter")()]
    fillers *= len(layer.info.tops) if len(fillers) == 1 else 1
    return tuple(
        _constant(layer, place, filler)
        if filler.type == "constant"
        else _filled(layer, place, filler)
        for place, filler in enumerate(fillers)
    )


def _constant(layer: Layer, place: int, filler: object) -> Tensor:
    name = f"top {place}"
    if name not in layer.constants:
        layer.constants[name] = _filled(layer, place, filler)
    return layer.constants[name]


def _filled(layer: Layer, place: int, filler: object) -> Tensor:
    top = torch.empty(tuple(layer.info.top_shapes[place]), device=layer.device)
    fill(top, filler)
    return top


@layer_type("Parameter")
def parameter(layer: Layer) -> Tensor:
    """A weight as a blob (parameter_layer.hpp)."""
    return layer.blobs[0]
