"""The weights of a net: filled, shared by name, shared with another net, listed for the solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from irv2caffe.engine.fillers import fill
from irv2caffe.engine.layer import LAYERS

if TYPE_CHECKING:
    from irv2caffe.shapes.infer import LayerInfo


@dataclass(frozen=True)
class Weight:
    """A learnable parameter (Net::learnable_params), BatchNorm's statistics included.

    Attributes:
        tensor: float32, in Caffe's shape; its ``grad`` is Caffe's diff.
        lr_mult: factor of the learning rate; 0 for statistics, which get no gradient.
        decay_mult: factor of the weight decay.
        layer: name of the layer that owns it.
        index: its place among the layer's blobs.
    """

    tensor: Tensor
    lr_mult: float
    decay_mult: float
    layer: str
    index: int


class Weights:
    """The weights of a net's layers.

    Attributes:
        learnable: in Caffe's order; shared ones once.
        by_layer: the blobs of each layer that has any, by layer name.
    """

    def __init__(self, device: torch.device, trained: Weights | None = None) -> None:
        self.learnable: list[Weight] = []
        self.by_layer: dict[str, list[Tensor]] = {}
        self._device = device
        self._trained = trained
        self._named: dict[str, Tensor] = {}

    def add(self, info: LayerInfo) -> list[Tensor]:
        """The blobs of the next layer: those of the trained net, of a shared name, or new ones."""
        if self._trained is not None and info.name in self._trained.by_layer:
            blobs = self._trained.by_layer[info.name]
        else:
            blobs = [self._blob(info, index) for index in range(len(info.params))]
        if blobs:
            self.by_layer[info.name] = blobs
        return blobs

    def _blob(self, info: LayerInfo, index: int) -> Tensor:
        specs = info.proto.param
        spec = specs[index] if index < len(specs) else None
        name = spec.name if spec is not None else ""
        if name and name in self._named:
            return self._named[name].view(info.params[index])
        is_statistic = info.num_statistics > 0
        lr_mult = 0.0 if is_statistic else spec.lr_mult if spec is not None else 1.0
        decay_mult = spec.decay_mult if spec is not None else 1.0
        tensor = torch.zeros(info.params[index], device=self._device)
        self._fill(info, index, tensor)
        tensor.requires_grad_(lr_mult != 0)
        if name:
            self._named[name] = tensor
        self.learnable.append(Weight(tensor, lr_mult, decay_mult, info.name, index))
        return tensor

    def _fill(self, info: LayerInfo, index: int, tensor: Tensor) -> None:
        fillers = LAYERS[info.type].fillers
        if index < len(fillers):
            field, default = fillers[index]
            param = getattr(info.proto, _param_field(info.type))
            if param.HasField(field):
                fill(tensor, getattr(param, field))
            else:
                tensor.data.fill_(default)


def _param_field(kind: str) -> str:
    from irv2caffe.proto.messages import LAYER_TYPES

    return LAYER_TYPES[kind] or ""
