"""A net in one phase: the loop over its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from irv2caffe.engine import layers as _register  # noqa: F401
from irv2caffe.engine.layer import LAYERS, Layer
from irv2caffe.engine.weights import Weights
from irv2caffe.errors import NetError, first_of
from irv2caffe.shapes.infer import AUTOMATIC, LayerInfo, NetShapes, RecordShapes, infer
from irv2caffe.shapes.layer_types import SHAPE_RULES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from irv2caffe.engine.options import EngineOptions
    from irv2caffe.shapes.phases import Phase

SOURCES = ("Data", "ImageData", "Input")
"""Layer types whose tops the caller of a forward pass gives."""


@dataclass(frozen=True)
class Pass:
    """The result of a forward pass.

    Attributes:
        outputs: the tops that no layer reads, by name, in alphabetical order as in Caffe's log.
        loss: the sum of all tops times their loss weights; a scalar.
        blobs: all tops by name, where they were asked for; else those of ``outputs``.
    """

    outputs: dict[str, Tensor]
    loss: Tensor
    blobs: dict[str, Tensor]


class Net:
    """A net that runs.

    Attributes:
        shapes: of all blobs and weights.
        layers: in the order of the file.
        weights: of all layers.
        sources: the layers whose tops the caller gives.
        outputs: names of the tops that no layer reads.
    """

    def __init__(
        self,
        proto: Any,
        phase: Phase,
        options: EngineOptions,
        *,
        device: torch.device,
        data_shapes: RecordShapes | None = None,
        trained: Net | None = None,
    ) -> None:
        """Sets up the layers and fills their weights.

        Args:
            proto: a NetParameter.
            phase: ``TRAIN`` or ``TEST``.
            options: of the engine.
            device: of the weights and blobs.
            data_shapes: shapes of records, as :func:`irv2caffe.shapes.infer.infer` takes them.
            trained: a net whose weights this one shares by layer name (ShareTrainedLayersWith).

        Raises:
            NetError: what Caffe would refuse, or what the engine lacks, all at once.
        """
        self.options = options
        self.device = device
        self.shapes: NetShapes = infer(proto, phase, data_shapes=data_shapes)
        _refuse_unsupported(self.shapes.layers)
        self.weights: Weights = Weights(device, trained.weights if trained is not None else None)
        self.layers = [
            Layer(info, phase, self.weights.add(info), options) for info in self.shapes.layers
        ]
        self.sources = [info for info in self.shapes.layers if info.type in SOURCES]
        self.outputs = _unread(self.shapes.layers)

    def forward(self, given: Mapping[str, Tensor], *, keep_blobs: bool = False) -> Pass:
        """Runs all layers.

        Args:
            given: the tops of the source layers, by name.
            keep_blobs: return all tops instead of the outputs only.
        """
        blobs: dict[str, Tensor] = {}
        loss = torch.zeros((), device=self.device)
        for layer in self.layers:
            if layer.proto.type in SOURCES:
                tops = tuple(given[name] for name in layer.info.tops)
            else:
                tops = self._run(layer, blobs)
            blobs.update(zip(layer.info.tops, tops, strict=True))
            for weight, top in zip(_loss_weights(layer.info), tops, strict=True):
                if weight:
                    loss = loss + weight * top.sum()
        outputs = {name: blobs[name] for name in self.outputs}
        return Pass(outputs, loss, blobs if keep_blobs else outputs)

    def _run(self, layer: Layer, blobs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        stops = layer.proto.propagate_down
        bottoms = [blobs[name] for name in layer.info.bottoms]
        for place, goes_on in enumerate(stops):
            if not goes_on:
                bottoms[place] = bottoms[place].detach()
        tops = LAYERS[layer.proto.type].function(layer, *bottoms)
        return tops if isinstance(tops, tuple) else (tops,)


def _refuse_unsupported(layers: tuple[LayerInfo, ...]) -> None:
    """Raises one error that lists all layers that the engine cannot run."""
    problems = []
    for info in layers:
        if info.type in SOURCES:
            continue
        if info.type not in LAYERS:
            problems.append(f"{info.name!r} ({info.type})")
        elif why := LAYERS[info.type].unsupported(info):
            problems.append(f"{info.name!r} ({info.type}: {why})")
    if problems:
        raise NetError(
            f"the torch engine cannot run {first_of(problems, 20)}",
            "train with Caffe itself: --engine caffe",
        )


def _loss_weights(info: LayerInfo) -> tuple[float, ...]:
    """The loss weight of each top; 1 for the first top of a loss without any (layer.hpp)."""
    given = tuple(info.proto.loss_weight)
    if given:
        return given
    is_loss = SHAPE_RULES[info.type].auto_tops
    return tuple(float(is_loss and place == 0) for place in range(len(info.tops)))


def _unread(layers: tuple[LayerInfo, ...]) -> list[str]:
    """The names of the tops that no layer reads, as Caffe's set of available blobs holds them."""
    unread: set[str] = set()
    for info in layers:
        unread.difference_update(info.bottoms)
        unread.update(name for name in info.tops if name != AUTOMATIC)
    return sorted(unread)
