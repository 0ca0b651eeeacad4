"""A layer that runs, and the registry of layer functions by layer type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from irv2caffe.engine.settings import UNREAD, Settings, settings_of
from irv2caffe.proto.messages import LAYER_TYPES
from irv2caffe.shapes.layer_types import SHAPE_RULES, LayerSetup

if TYPE_CHECKING:
    from irv2caffe.engine.options import EngineOptions
    from irv2caffe.shapes.infer import LayerInfo
    from irv2caffe.shapes.layer_types import Shape
    from irv2caffe.shapes.phases import Phase


@dataclass
class Layer:
    """A layer of a net in one phase, as its function sees it.

    Attributes:
        info: the LayerParameter and the shapes of its bottoms, tops and weight blobs.
        phase: ``TRAIN`` or ``TEST``; that of the net, unless the layer has its own.
        blobs: its weights in Caffe's order and shapes; shared with the layers that share them.
        options: the options of the engine.
        in_place: the top may overwrite the bottom, since nothing needs the bottom afterwards: the
            prototxt says so, and the layer that made the bottom keeps no reference to it.
        device: of the blobs.
        constants: tensors that the function computed once and keeps.
        settings: the fields of ``param`` as plain values.
    """

    info: LayerInfo
    phase: Phase
    blobs: list[Tensor]
    options: EngineOptions
    in_place: bool = False
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    constants: dict[str, Tensor] = field(default_factory=dict)
    settings: Settings = UNREAD

    def __post_init__(self) -> None:
        if self.settings is UNREAD:
            self.settings = settings_of(self.info.proto)

    @property
    def proto(self) -> Any:
        """The LayerParameter."""
        return self.info.proto

    @property
    def param(self) -> Any:
        """The ``*_param`` message of this layer type."""
        return getattr(self.proto, LAYER_TYPES[self.proto.type] or "")

    def top_shapes(self, *bottoms: Tensor) -> Sequence[Shape]:
        """The shapes of the tops; by the shape rule if the bottoms have changed theirs."""
        shapes = tuple(tuple(bottom.shape) for bottom in bottoms)
        if shapes == self.info.bottom_shapes:
            return self.info.top_shapes
        setup = LayerSetup(self.proto, shapes, len(self.info.tops))
        return SHAPE_RULES[self.info.type].function(setup).tops


Tops: TypeAlias = Tensor | tuple[Tensor, ...]
LayerFunction: TypeAlias = Callable[..., Tops]
"""Takes a Layer and its bottoms, returns its top or tops; autograd gives the backward pass."""


Fillers: TypeAlias = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class LayerType:
    """What the engine knows of a layer type.

    Attributes:
        function: computes the tops.
        fillers: for each weight blob, the field with its filler in the layer's ``*_param``, and the
            constant that Caffe fills in where that field is missing; or a function of the layer.
        unsupported: says what of a layer the function cannot do; empty for nothing.
    """

    function: LayerFunction
    fillers: Fillers | Callable[[LayerInfo], Fillers] = ()
    unsupported: Callable[[LayerInfo], str] = lambda _: ""


LAYERS: dict[str, LayerType] = {}


def layer_type(
    *types: str,
    fillers: Fillers | Callable[[LayerInfo], Fillers] = (),
    unsupported: Callable[[LayerInfo], str] = lambda _: "",
) -> Callable[[LayerFunction], LayerFunction]:
    """Registers a function for layer types."""

    def register(function: LayerFunction) -> LayerFunction:
        LAYERS.update(dict.fromkeys(types, LayerType(function, fillers, unsupported)))
        return function

    return register
