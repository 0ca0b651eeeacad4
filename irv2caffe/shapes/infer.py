"""Infers the shapes of all blobs and weights of a net, as Caffe sets them up, without Caffe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import NetError
from irv2caffe.shapes.graph import CheckedGraph, bottom_sources
from irv2caffe.shapes.layer_types import (
    SHAPE_RULES,
    UNKNOWN,
    LayerSetup,
    LayerShapes,
    Shape,
    ShapeRule,
    count,
)
from irv2caffe.shapes.layer_types.base import (
    check_counts,
    check_loss_weights,
    check_propagate_down,
)
from irv2caffe.shapes.layer_types.detection import foreign_rule
from irv2caffe.shapes.layer_types.fork_layers import unknown
from irv2caffe.shapes.phases import Phase, selected
from irv2caffe.shapes.sharing import SharedWeights

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.proto.positions import Node

RecordShapes = Mapping[str, Shape] | Callable[[Any], Sequence[Shape] | None]
AUTOMATIC = "(automatic)"


@dataclass(frozen=True)
class LayerInfo:
    """A layer with its shapes.

    Attributes:
        bottoms: names of its bottoms.
        tops: names of its tops; ``(automatic)`` for the missing top of a loss.
        top_uses: how often each top is read, as a bottom or as a loss; if more than once, Caffe
            inserts a Split layer.
        params: shapes of its weight blobs, in Caffe's order.
        num_params: learned values; shared ones are counted in the first layer that has them.
        num_frozen: those of ``num_params`` with ``lr_mult: 0``.
        num_statistics: values of BatchNorm's blobs, which are not learned.
        macs: multiply-adds with a weight, for the whole batch.
        line: first line of the layer in the prototxt, or None.
        proto: the LayerParameter.
        partial: some of its shapes or weights are unknown.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    bottom_shapes: tuple[Shape, ...]
    top_shapes: tuple[Shape, ...]
    top_uses: tuple[int, ...]
    params: tuple[Shape, ...]
    num_params: int
    num_frozen: int
    num_statistics: int
    macs: int
    line: int | None
    proto: Any = field(repr=False, compare=False)
    partial: bool = False

    @property
    def in_place(self) -> bool:
        """Whether the first top is the first bottom."""
        return bool(self.bottoms and self.tops) and self.bottoms[0] == self.tops[0]


@dataclass(frozen=True)
class NetShapes:
    """A net in one phase.

    Attributes:
        name: of the net.
        phase: ``TRAIN`` or ``TEST``.
        blobs: shape by blob name, without those of Caffe's automatic Split layers.
        layers: in the order of the file.
        notes: assumptions that were result.
        unknown: the layers whose tops have unknown shapes; layers that read them are left out.
    """

    name: str
    phase: Phase
    blobs: dict[str, Shape]
    layers: tuple[LayerInfo, ...]
    notes: tuple[str, ...] = ()
    unknown: tuple[LayerInfo, ...] = ()

    @cached_property
    def sources(self) -> list[tuple[int, ...]]:
        """For each layer, the positions of the layers that produce its bottoms."""
        top_of = bottom_sources([layer.proto for layer in self.layers])
        return [
            tuple(top_of[at, place][0] for place in range(len(layer.bottoms)))
            for at, layer in enumerate(self.layers)
        ]


@dataclass(frozen=True)
class ForkLayers:
    """Shapes and fields for layer types of Caffe's forks.

    Attributes:
        given: shapes of tops that the user gives, by the name of a layer or layer type
            (:func:`irv2caffe.shapes.layer_types.given.given_rule`).
        nodes: the layers as written in the file, for fields that the schema does not have.
    """

    given: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    nodes: Sequence[Node] = ()


def infer(
    net: Any,
    phase: Phase,
    *,
    data_shapes: RecordShapes | None = None,
    batch_size: int | None = None,
    lines: Sequence[int] = (),
    path: Path | None = None,
    foreign: ForkLayers | None = None,
    level: int | None = None,
    stages: Iterable[str] = (),
) -> NetShapes:
    """Infers the shapes of a net in a phase.

    Args:
        net: a NetParameter, also of formats before Caffe 1.0.
        phase: ``TRAIN`` or ``TEST``.
        data_shapes: shapes missing in the prototxt, by the name of the top or layer, or
            as a function from the LayerParameter to a shape for each top, or None. For image
            data: channels, height and width of a record; for HDF5Data: a record of each top;
            for Python and Input: the whole shape of each top.
        batch_size: replaces the batch sizes in the file.
        lines: first lines of the layers of ``net`` (:func:`irv2caffe.proto.text.layer_lines`).
        path: named in errors.
        foreign: accept layer types of Caffe's forks, as far as they are known.
        level: of the NetState; None takes the net's own.
        stages: of the NetState, added to the net's own.

    Raises:
        NetError: what Caffe would refuse, with the layer and, where known, its line.
    """
    try:
        chosen = selected(net, phase, level=level, stages=stages)
    except NetError as error:
        raise _located(error, None, path) from error
    layers, origins = chosen.net.layer, chosen.origins
    if not layers:
        raise NetError(f"the net has no layers in phase {phase}", path=path)
    starts = [lines[o] if o is not None and o < len(lines) else None for o in origins]
    written = foreign.nodes if foreign is not None else ()
    nodes = [written[o] if o is not None and o < len(written) else None for o in origins]
    graph = CheckedGraph(layers)
    inference = _Inference(graph, _record_lookup(data_shapes), batch_size, foreign)
    try:
        graph.check(allow_unknown=foreign is not None)
        for at, proto in enumerate(layers):
            graph.at = at
            inference.add(proto, starts[at], nodes[at])
    except NetError as error:
        error.hint = error.hint or "; ".join(chosen.notes[:3])
        raise _located(error, starts[graph.at], path) from error
    notes = (*chosen.notes, *graph.duplicate_names(), *inference.notes)
    infos, unknown = tuple(inference.layers), tuple(inference.unknown)
    return NetShapes(chosen.net.name, phase, inference.blobs, infos, notes, unknown)


def _located(error: NetError, line: int | None, path: Path | None) -> NetError:
    return NetError(error.message, error.hint, layer=error.layer, path=path, line=line)


def _has_unknown(shapes: Sequence[Shape]) -> bool:
    return any(shape is UNKNOWN for shape in shapes)


def _record_lookup(data_shapes: RecordShapes | None) -> Callable[[Any], Sequence[Shape]]:
    """The shapes given by the caller, as a function of the layer."""
    if callable(data_shapes):
        return lambda proto: data_shapes(proto) or ()
    known = data_shapes or {}

    def look_up(proto: Any) -> Sequence[Shape]:
        if proto.bottom and proto.type != "Python":
            return ()
        found = [known[top] for top in proto.top if top in known]
        return found or ([known[proto.name]] if proto.name in known else ())

    return look_up


@dataclass
class _Inference:
    """Sets up the layers of a net in order, as Net::Init does."""

    graph: CheckedGraph
    record_shapes: Callable[[Any], Sequence[Shape]]
    batch_size: int | None
    foreign: ForkLayers | None
    blobs: dict[str, Shape] = field(default_factory=dict)
    layers: list[LayerInfo] = field(default_factory=list)
    unknown: list[LayerInfo] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shared: SharedWeights = field(default_factory=SharedWeights)
    # For each blob, the poolings above it whose size Caffe rounded up.
    rounded: dict[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.batch_type, self.batch_in_file = self.graph.first_batch()

    def add(self, proto: Any, line: int | None, node: Node | None) -> None:
        """Sets up the next layer."""
        if node is not None and not proto.type:  # V1LayerParameter's enum lacks types of forks
            proto.type = node.find("type").value.strip("\"'")
        foreign = self.foreign
        rule = SHAPE_RULES[proto.type] if foreign is None else foreign_rule(proto, foreign.given)
        names = [*proto.top]
        if rule.auto_tops:
            names += [AUTOMATIC] * (rule.tops[0] - len(names))
        layer = LayerSetup(
            proto,
            tuple(self.blobs[name] for name in proto.bottom),
            len(names),
            self.batch_size,
            self.batch_in_file if proto.type == self.batch_type else None,
            self.record_shapes(proto) if rule.bottoms[0] == 0 else (),
            self.notes,
            node,
        )
        check_counts(layer, rule)
        check_loss_weights(layer, rule)
        check_propagate_down(layer)
        result = self._apply(rule, layer)
        tops = tuple(shape if shape is UNKNOWN else tuple(shape) for shape in result.tops)
        for shape, name in zip(tops, names, strict=True):
            layer.check_blob(shape, f"top {name!r}")
        for number, shape in enumerate(result.params):
            layer.check_blob(shape, f"weight {number}")
        self.blobs.update(zip(names, tops, strict=True))
        learned, frozen = self.shared.learned(layer, result)
        info = LayerInfo(
            name=proto.name,
            type=proto.type,
            bottoms=tuple(proto.bottom),
            tops=tuple(names),
            bottom_shapes=layer.bottoms,
            top_shapes=tops,
            top_uses=tuple(self.graph.uses[self.graph.at, place] for place in range(len(names))),
            params=tuple(map(tuple, result.params)),
            num_params=learned,
            num_frozen=frozen,
            num_statistics=sum(map(count, result.params)) if result.statistics else 0,
            macs=result.macs,
            line=line,
            proto=proto,
            partial=result.partial,
        )
        self.layers.append(info)
        is_first = _has_unknown(tops) and not _has_unknown(layer.bottoms)
        if result.partial and (is_first or rule.function is unknown):
            self.unknown.append(info)

    def _apply(self, rule: ShapeRule, layer: LayerSetup) -> LayerShapes:
        """Calls the rule; adds a hint if branches differ because Caffe's pooling rounds up."""
        if not rule.ignores_bottoms and _has_unknown(layer.bottoms):
            is_number = rule.auto_tops or layer.proto.type == "Accuracy"
            return LayerShapes([() if is_number else UNKNOWN] * layer.num_tops, partial=True)
        above = [self.rounded.get(name, frozenset()) for name in layer.proto.bottom]
        try:
            result = rule.function(layer)
        except NetError as error:
            sizes = {shape[2:] for shape in layer.bottoms}
            culprits = frozenset().union(*above) - frozenset.intersection(*above) if above else ()
            if layer.proto.type in {"Concat", "Eltwise"} and len(sizes) > 1 and culprits:
                error.hint = (
                    "Caffe's pooling rounds up where convolution rounds down: pooling "
                    f"{', '.join(sorted(map(repr, culprits))[:3])} did; use another input size, "
                    "or round_mode: FLOOR, which builds later than Caffe 1.0 know"
                )
            raise
        own = {layer.proto.name} if result.rounded_up else set()
        for name in layer.proto.top:
            self.rounded[name] = frozenset(own).union(*above)
        return result
