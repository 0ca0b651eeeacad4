"""Summarizes a net: output, parameters, multiply-adds and memory of each stage and layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import NetError, first_of
from irv2caffe.proto import messages
from irv2caffe.shapes.infer import ForkLayers, LayerInfo, NetShapes, RecordShapes, infer
from irv2caffe.shapes.layer_types import SHAPE_RULES, UNKNOWN, Shape
from irv2caffe.shapes.layer_types.base import shape_text
from irv2caffe.shapes.memory import Memory, add, log_bytes, memory
from irv2caffe.shapes.stages import Stage, stages
from irv2caffe.shapes.upgrade import upgrade
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from irv2caffe.shapes.phases import Phase

_MEMORY_LABELS = {
    "data": "data",
    "gradients": "gradients of data",
    "batch_norm": "buffers of BatchNorm",
    "scale": "buffers of Scale in place",
    "others": "buffers of other layers",
    "columns": "unfolded images of convolutions (im2col), independent of the batch",
    "weights": "weights and statistics",
    "weight_gradients": "gradients of weights",
}
NUMBERS = frozenset({"parameters", "multiply-adds", "memory"})
HEADINGS = ("stage", "output", "parameters", "multiply-adds", "memory")
LAYER_HEADINGS = ("layer", "type", "output", "parameters", "multiply-adds", "memory")


@dataclass(frozen=True)
class Part:
    """The figures of a stage, a layer or a net.

    Attributes:
        output: shape of its last top without the batch; empty for scalars and without a top.
        parameters: learned values.
        frozen: those of them with ``lr_mult: 0``.
        statistics: values of BatchNorm's blobs.
        macs: multiply-adds with a weight, for one image.
        memory: for the batch.
        partial: some values are unknown; the figures are lower bounds.
    """

    output: Shape
    parameters: int
    frozen: int
    statistics: int
    macs: int
    memory: Memory
    partial: bool = False

    @classmethod
    def total(cls, parts: Sequence[Part], output: Shape = ()) -> Part:
        """The sum of several parts."""
        return cls(
            output,
            sum(part.parameters for part in parts),
            sum(part.frozen for part in parts),
            sum(part.statistics for part in parts),
            sum(part.macs for part in parts),
            add(part.memory for part in parts),
            any(part.partial for part in parts),
        )

    def cells(self) -> tuple[str, str, str, str]:
        """Output, parameters, multiply-adds and memory as cells of a table."""
        more = " + ?" if self.partial else ""
        memory_bytes = self.memory.of_batch
        return (
            "?" if self.output is UNKNOWN else shape_text(self.output) if self.output else "",
            f"{self.parameters:,}{more}" if self.parameters else more[3:],
            f"{amount(self.macs)}{more}" if self.macs else more[3:],
            f"{format_bytes(memory_bytes)}{more}" if memory_bytes else more[3:],
        )


@dataclass(frozen=True)
class NetSummary:
    """The figures of a net.

    Attributes:
        shapes: of all blobs and weights.
        batch: first size of the net's first blob.
        backward: whether ``memory`` includes the backward pass.
        stages: the blocks of the net.
        stage_parts: the figures of each stage.
        layer_parts: the figures of each layer.
        total: the figures of the net.
        caffe_log_bytes: "Memory required for data" in Caffe's log.
    """

    shapes: NetShapes
    batch: int
    backward: bool
    stages: tuple[Stage, ...]
    stage_parts: tuple[Part, ...]
    layer_parts: tuple[Part, ...]
    total: Part
    caffe_log_bytes: int

    def rows(self, *, layers: bool = False) -> list[tuple[str, ...]]:
        """The rows of a table under :data:`HEADINGS`, or :data:`LAYER_HEADINGS` with ``layers``."""
        if layers:
            infos = zip(self.shapes.layers, self.layer_parts, strict=True)
            of_layers = [(info.name, info.type, *part.cells()) for info, part in infos]
            return [*of_layers, ("total", "", *self.total.cells())]
        parts = zip(self.stages, self.stage_parts, strict=True)
        of_stages = [(stage.label, *part.cells()) for stage, part in parts]
        return [*of_stages, ("total", *self.total.cells())]

    def lines(self) -> list[str]:
        """The totals as text."""
        total, used = self.total, self.total.memory
        at_least = "at least " if total.partial else ""
        apart = [f"{total.frozen:,} of them frozen"] if total.frozen else []
        apart += [f"{total.statistics:,} BatchNorm statistics apart"] if total.statistics else []
        images = f"{self.batch} image{'s' if self.batch > 1 else ''}"
        pass_ = "forward and backward pass" if self.backward else "forward pass"
        lines = [
            f"parameters      {at_least}{total.parameters:,}"
            + (f" ({', '.join(apart)})" if apart else ""),
            f"multiply-adds   {at_least}{amount(total.macs)} for one image",
            f"memory          {at_least}{format_bytes(used.total)}: a {pass_} of {images}",
        ]
        lines += [
            f"  {format_bytes(getattr(used, name)):>12}  {label}"
            for name, label in _MEMORY_LABELS.items()
            if getattr(used, name)
        ]
        lines.append(f"each image      {format_bytes(used.of_batch / self.batch)}")
        if self.backward:
            lines.append(
                f"not counted     solver history: {format_bytes(used.weights)} (SGD) to "
                f"{format_bytes(3 * used.weights)} (Adam)"
            )
        lines.append(
            f"Caffe's log     Memory required for data: {self.caffe_log_bytes} (tops only)"
        )
        lines += [f"not known       {line}" for line in self._unknown_lines()]
        return [*lines, *(f"note            {note}" for note in self.shapes.notes)]

    def _unknown_lines(self) -> list[str]:
        """The unknown layer types, with the options that give their tops."""
        by_type: dict[str, list[LayerInfo]] = {}
        for layer in self.shapes.unknown:
            by_type.setdefault(layer.type, []).append(layer)
        lines = []
        for kind, layers in by_type.items():
            first = layers[0]
            names = first_of([repr(layer.name[:60]) for layer in layers], 3)
            each = first.name if kind in SHAPE_RULES or not kind else kind
            if first.bottoms:
                option = (
                    f"--layer-type {each[:60]}={','.join(['NxCxHxW'] * len(first.tops))} or =same"
                )
            else:
                sizes = ["1x3x224x224", *["1"] * len(first.tops)]
                tops = zip(first.tops, sizes, strict=False)
                option = " ".join(f"--input-shape {top[:60]}={size}" for top, size in tops)
            lines.append(f"type {kind[:60]} ({names}): give its tops with {option}")
        num_after = sum(part.partial for part in self.layer_parts) - len(self.shapes.unknown)
        if lines and num_after:
            lines.append(f"{num_after} layer(s) after them")
        return lines


def default_phase(net: Any) -> Phase:
    """TRAIN for a net that has a loss or a layer of that phase only, else TEST."""
    try:
        layers = upgrade(net).layer
    except NetError:  # raised again by summarize
        return "TEST"
    for layer in layers:
        if any(rule.phase == messages.TRAIN and rule.HasField("phase") for rule in layer.include):
            return "TRAIN"
        if layer.type.endswith("Loss"):
            return "TRAIN"
    return "TEST"


def summarize(
    net: Any,
    phase: Phase,
    batch_size: int | None = None,
    *,
    data_shapes: RecordShapes | None = None,
    lines: Sequence[int] = (),
    path: Path | None = None,
    foreign: ForkLayers | None = None,
) -> NetSummary:
    """Summarizes a net in a phase; the arguments are those of :func:`infer`.

    Memory is that of a forward pass, in TRAIN of a forward and a backward pass.

    Raises:
        NetError: what Caffe would refuse.
    """
    shapes = infer(
        net,
        phase,
        data_shapes=data_shapes,
        batch_size=batch_size,
        lines=lines,
        path=path,
        foreign=foreign,
    )
    batch = _batch(shapes)
    backward = phase == "TRAIN"
    used = memory(shapes, backward=backward)
    layer_parts = tuple(
        Part(
            _output([info]),
            info.num_params,
            info.num_frozen,
            info.num_statistics,
            info.macs // batch,
            bytes_,
            info.partial,
        )
        for info, bytes_ in zip(shapes.layers, used, strict=True)
    )
    found = stages(shapes)
    stage_parts = []
    for stage in found:
        places = [place for block in stage.blocks for place in block.layers]
        output = _output([shapes.layers[place] for place in places])
        stage_parts.append(Part.total([layer_parts[place] for place in places], output))
    return NetSummary(
        shapes,
        batch,
        backward,
        found,
        tuple(stage_parts),
        layer_parts,
        Part.total(layer_parts),
        log_bytes(shapes),
    )


def _batch(shapes: NetShapes) -> int:
    for layer in shapes.layers:
        if not layer.bottoms and layer.top_shapes and layer.top_shapes[0]:
            return layer.top_shapes[0][0]
    return 1


def _output(layers: Sequence[LayerInfo]) -> Shape:
    """The first top of the last layer with a top of two or more axes, without the batch."""
    for layer in reversed(layers):
        for shape in layer.top_shapes:
            if shape is UNKNOWN:
                return UNKNOWN
            if len(shape) > 1:
                return shape[1:]
    return ()


def amount(value: float) -> str:
    """A number of multiply-adds as text: ``9.258 G``, ``12.3 M``, ``450``."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:,.3f} {unit}" if unit == "G" else f"{value / size:,.1f} {unit}"
    return f"{value:,.0f}"
