"""A net in one phase: the loop over its layers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from irv2caffe.engine import layers as _register  # noqa: F401
from irv2caffe.engine.debug import print_layer
from irv2caffe.engine.layer import LAYERS, Layer
from irv2caffe.engine.splits import insert_splits
from irv2caffe.engine.weights import Weights
from irv2caffe.errors import NetError, UsageError, did_you_mean, first_of
from irv2caffe.proto import messages
from irv2caffe.shapes.infer import LayerInfo, NetShapes, RecordShapes, infer
from irv2caffe.shapes.layer_types import SHAPE_RULES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from irv2caffe.engine.options import EngineOptions
    from irv2caffe.shapes.phases import Phase

SOURCES = ("Data", "ImageData", "Input")
"""Layer types whose tops the caller of a forward pass gives."""

_OVERWRITABLE = (
    "BatchNorm",
    "Bias",
    "Concat",
    "Convolution",
    "Deconvolution",
    "Eltwise",
    "InnerProduct",
    "Scale",
)
"""Layer types whose tops share no memory with a bottom and are not kept for the backward pass."""


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
        phase: ``TRAIN`` or ``TEST``.
        shapes: of all blobs and weights.
        layers: in the order of the file.
        weights: of all layers.
        sources: the layers whose tops the caller gives.
        outputs: names of the tops that no layer reads, with the blob of the file that each one is;
            they differ where Caffe inserts a Split layer for a top with a loss weight.
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
        level: int | None = None,
        stages: Iterable[str] = (),
    ) -> None:
        """Sets up the layers and fills their weights from torch's random numbers.

        Args:
            proto: a NetParameter.
            phase: ``TRAIN`` or ``TEST``.
            options: of the engine.
            device: of the weights and blobs.
            data_shapes: shapes of records, as :func:`irv2caffe.shapes.infer.infer` takes them.
            trained: a net whose weights this one shares by layer name (ShareTrainedLayersWith).
            level: of the NetState; None takes the net's own.
            stages: of the NetState, added to the net's own.

        Raises:
            NetError: what Caffe would refuse, or what the engine lacks, all at once.
            UsageError: the net does not have the layer of ``stop_after``.
        """
        self.phase = phase
        self.options = options
        self.device = device
        self.force_backward = bool(proto.force_backward)
        self.shapes: NetShapes = infer(
            proto, phase, data_shapes=data_shapes, level=level, stages=stages
        )
        infos = self.shapes.layers
        _refuse_unsupported(infos)
        _check_stop(options.stop_after, infos)
        self.weights: Weights = Weights(device, trained.weights if trained is not None else None)
        self.layers = [self._layer(at) for at in range(len(infos))]
        self.sources = [info for info in infos if info.type in SOURCES]
        self.outputs = insert_splits([info.proto for info in infos]).outputs()
        self._finished = _finished_tops(infos, set(self.outputs.values()))

    def _layer(self, at: int) -> Layer:
        info = self.shapes.layers[at]
        phase: Phase = self.phase
        if info.proto.HasField("phase"):
            phase = "TRAIN" if info.proto.phase == messages.TRAIN else "TEST"
        in_place = False
        if info.in_place:
            producer = self.shapes.layers[self.shapes.sources[at][0]]
            in_place = _is_overwritable(producer)
        blobs = self.weights.add(info, force_backward=self.force_backward)
        return Layer(info, phase, blobs, self.options, in_place, self.device)

    def forward(
        self, given: Mapping[str, Tensor], *, keep_blobs: bool | Collection[str] = False
    ) -> Pass:
        """Runs all layers, or those up to ``stop_after``.

        A blob is dropped after the last layer that reads it, unless autograd keeps it.

        Args:
            given: the tops of the source layers, by name.
            keep_blobs: return all tops, or those of some names, instead of the outputs only.
        """
        kept: Collection[str] = () if isinstance(keep_blobs, bool) else keep_blobs
        blobs: dict[str, Tensor] = {}
        loss = torch.zeros((), device=self.device)
        for layer, finished in zip(self.layers, self._finished, strict=True):
            start_s = time.perf_counter()
            tops = self._run(layer, given, blobs)
            blobs.update(zip(layer.info.tops, tops, strict=True))
            for weight, top in zip(loss_weights(layer.info), tops, strict=True):
                if weight:
                    loss = loss + weight * top.sum()
            if self.options.debug_layers:
                print_layer(layer, tops, start_s)
            if layer.info.name == self.options.stop_after:
                break
            for name in () if keep_blobs is True else finished:
                if name not in kept:
                    del blobs[name]
        outputs = {name: blobs[top] for name, top in self.outputs.items() if top in blobs}
        return Pass(outputs, loss, blobs if keep_blobs else outputs)

    def _run(
        self, layer: Layer, given: Mapping[str, Tensor], blobs: Mapping[str, Tensor]
    ) -> Sequence[Tensor]:
        """The tops of a layer."""
        if layer.info.type in SOURCES:
            tops = [given[name] for name in layer.info.tops]
            return [top.detach().requires_grad_(self.force_backward) for top in tops]
        bottoms = [blobs[name] for name in layer.info.bottoms]
        for place, goes_on in enumerate(layer.proto.propagate_down):
            if not goes_on:
                bottoms[place] = bottoms[place].detach()
        result = LAYERS[layer.info.type].function(layer, *bottoms)
        return result if isinstance(result, tuple) else (result,)


def _is_overwritable(producer: LayerInfo) -> bool:
    """Whether a layer in place may write over what this one computed."""
    param = producer.proto.eltwise_param
    is_product = producer.type == "Eltwise" and param.operation == param.PROD
    return producer.type in _OVERWRITABLE and not is_product  # whose backward pass reads its top


def loss_weights(info: LayerInfo) -> tuple[float, ...]:
    """The loss weight of each top; 1 for the first top of a loss without any (layer.hpp)."""
    given = tuple(info.proto.loss_weight)
    if given:
        return given
    is_loss = SHAPE_RULES[info.type].auto_tops
    return tuple(float(is_loss and place == 0) for place in range(len(info.tops)))


def _refuse_unsupported(layers: Iterable[LayerInfo]) -> None:
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


def _check_stop(stop_after: str, layers: Iterable[LayerInfo]) -> None:
    names = [info.name for info in layers]
    if stop_after and stop_after not in names:
        hint = did_you_mean(stop_after, names)
        raise UsageError(f"--stop-after {stop_after}: the net has no layer of this name", hint)


def _finished_tops(layers: Sequence[LayerInfo], kept: set[str]) -> list[list[str]]:
    """For each layer, the blobs that no later layer reads, without those in ``kept``."""
    last = {name: at for at, info in enumerate(layers) for name in info.bottoms}
    finished: list[list[str]] = [[] for _ in layers]
    for name, at in last.items():
        if name not in kept:
            finished[at].append(name)
    return finished
