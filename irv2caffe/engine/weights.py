"""The weights of a net: filled, shared by name, shared with another net, listed for the solver."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from irv2caffe.engine.fillers import fill
from irv2caffe.engine.layer import LAYERS
from irv2caffe.errors import FormatError, NetError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_fitting_array
from irv2caffe.proto.messages import LAYER_TYPES
from irv2caffe.shapes.layer_types.base import shape_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from irv2caffe.shapes.infer import LayerInfo

_DEFAULT_SPEC = messages.message_class("ParamSpec")()


@dataclass(frozen=True)
class Weight:
    """A learnable parameter (Net::learnable_params), BatchNorm's statistics included.

    Attributes:
        tensor: float32, in Caffe's shape; its ``grad`` is Caffe's diff.
        lr_mult: factor of the learning rate; with 0 no gradient is computed.
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
        by_layer: the blobs of each layer by its name; of layers of one name, those of the first.
    """

    def __init__(self, device: torch.device, trained: Weights | None = None) -> None:
        """Starts without layers.

        Args:
            device: of new weights.
            trained: weights to be shared by layer name (Net::ShareTrainedLayersWith).
        """
        self.learnable: list[Weight] = []
        self.by_layer: dict[str, list[Tensor]] = {}
        self._device = device
        self._trained = trained.by_layer if trained is not None else {}
        self._owners: dict[str, int] = {}  # place in learnable, by the name of the parameter

    def add(self, info: LayerInfo, *, force_backward: bool = False) -> list[Tensor]:
        """The blobs of the next layer: those of the trained net, of a shared name, or new ones.

        Args:
            info: the layer.
            force_backward: compute gradients also of weights with ``lr_mult: 0``.

        Raises:
            NetError: a bad filler, or the weights of the trained net have other shapes.
        """
        if info.name in self._trained and info.name not in self.by_layer:
            blobs = self._trained[info.name]
            _check_same_shapes(info, blobs)
        else:
            blobs = [self._blob(info, index, force_backward) for index in range(len(info.params))]
        self.by_layer.setdefault(info.name, blobs)
        return blobs

    def _blob(self, info: LayerInfo, index: int, force_backward: bool) -> Tensor:
        """A blob by the rules of Net::AppendParam, which infer has checked already."""
        specs = info.proto.param
        spec = specs[index] if index < len(specs) else _DEFAULT_SPEC
        if spec.name in self._owners:
            place = self._owners[spec.name]
            self.learnable[place] = weight = _with_multipliers(self.learnable[place], spec)
        else:
            if spec.name:
                self._owners[spec.name] = len(self.learnable)
            lr_mult = 0.0 if info.num_statistics else spec.lr_mult
            tensor = _filled(info, index).to(self._device)
            weight = Weight(tensor, lr_mult, spec.decay_mult, info.name, index)
            self.learnable.append(weight)
        learns = weight.lr_mult != 0 or (force_backward and not info.num_statistics)
        weight.tensor.requires_grad_(learns)
        shape = info.params[index]
        return weight.tensor if weight.tensor.shape == shape else weight.tensor.view(shape)


def _with_multipliers(weight: Weight, spec: Any) -> Weight:
    """A shared weight with the multipliers that are given in a layer that shares it."""
    given = {name: getattr(spec, name) for name in ("lr_mult", "decay_mult") if spec.HasField(name)}
    return replace(weight, **given)


def _filled(info: LayerInfo, index: int) -> Tensor:
    """A new weight, made on the CPU, so that all devices start from the same numbers."""
    tensor = torch.zeros(info.params[index])
    try:
        if info.proto.blobs:
            return tensor.copy_(torch.from_numpy(_written(info, index)))
        _fill(info, index, tensor)
    except FormatError as error:
        message = f"layer {info.name!r} ({info.type}): {error.message}"
        raise NetError(message, error.hint, layer=info.name, line=info.line) from error
    return tensor


def _written(info: LayerInfo, index: int) -> NDArray[Any]:
    """The values of a weight in the prototxt, which Caffe takes instead of a filler."""
    blobs = info.proto.blobs
    if len(blobs) != len(info.params):
        raise FormatError(f"has {len(blobs)} blobs for {len(info.params)} weights")
    try:
        return read_fitting_array(blobs[index], info.params[index])
    except FormatError as error:
        raise FormatError(f"blob {index}: {error.message}") from error


def _fill(info: LayerInfo, index: int, tensor: Tensor) -> None:
    """Fills a weight as its filler says, or with the layer type's own value; else it stays 0."""
    fillers = LAYERS[info.type].fillers
    fillers = fillers(info) if callable(fillers) else fillers
    if index >= len(fillers):
        return
    field, default = fillers[index]
    param = getattr(info.proto, LAYER_TYPES[info.type] or "")
    if param.HasField(field):
        fill(tensor, getattr(param, field))
    else:
        tensor.fill_(default)


def _check_same_shapes(info: LayerInfo, blobs: list[Tensor]) -> None:
    theirs = [tuple(blob.shape) for blob in blobs]
    if theirs != list(info.params):
        shapes = [", ".join(map(shape_text, each)) or "none" for each in (info.params, theirs)]
        raise NetError(
            f"layer {info.name!r} ({info.type}): has the weights {shapes[0]}; in the training net "
            f"a layer of this name has {shapes[1]}",
            "give it another name, or the same weights",
            layer=info.name,
            line=info.line,
        )
