"""Shapes of every blob and weight of a net, as Caffe would make them; in pure Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import NetError
from irv2caffe.shapes.graph import Wiring
from irv2caffe.shapes.layer_types import (
    SHAPE_RULES,
    UNKNOWN,
    LayerSetup,
    LayerShapes,
    Shape,
    ShapeRule,
    count,
)
from irv2caffe.shapes.layer_types.base import check_counts, check_loss_weights
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
    """A layer with the shapes of all it touches.

    Attributes:
        name: of the layer.
        type: of the layer.
        bottoms: names of what it reads.
        tops: names of what it makes; ``(automatic)`` is a loss that names none.
        bottom_shapes: in that order.
        top_shapes: in that order.
        top_uses: how often each top is read, as a bottom or as a loss; from two on Caffe puts a
            Split behind it.
        params: shapes of its blobs in Caffe's order.
        num_params: values in them that are learned, shared ones counted at their owner.
        num_frozen: those of ``num_params`` with ``lr_mult: 0``.
        num_statistics: values of BatchNorm's blobs, which are not learned.
        macs: multiplications with a weight, of the whole batch.
        line: where it begins in the prototxt, or None.
        proto: the LayerParameter.
        partial: something of it is not known.
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
        """Whether its first top is its first bottom."""
        return bool(self.bottoms and self.tops) and self.bottoms[0] == self.tops[0]


@dataclass(frozen=True)
class NetShapes:
    """A net in one phase.

    Attributes:
        name: of the net.
        phase: ``TRAIN`` or ``TEST``.
        blobs: name to shape; the blobs of Caffe's automatic Split layers are not listed.
        layers: in the order of the file.
        notes: what had to be assumed.
        unknown: the layers of which nothing is known; with them others that read their tops.
    """

    name: str
    phase: Phase
    blobs: dict[str, Shape]
    layers: tuple[LayerInfo, ...]
    notes: tuple[str, ...] = ()
    unknown: tuple[LayerInfo, ...] = ()


@dataclass(frozen=True)
class ForkLayers:
    """What lets :func:`infer` look at nets of Caffe's forks.

    Attributes:
        given: by the name of a layer or layer type, the shapes of its tops
            (:func:`irv2caffe.shapes.layer_types.given.given_rule`).
        nodes: the layers of the file as they are written; empty where that says no more than they.
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
) -> NetShapes:
    """The shapes of a net in a phase.

    Args:
        net: a NetParameter, of any age.
        phase: ``TRAIN`` or ``TEST``.
        data_shapes: what the prototxt does not say, by the name of the top or layer, or as a
            function of the LayerParameter that returns a shape for each top or None. For image
            data the channels, height and width of a record; for HDF5Data a record of each top;
            for Python and Input the whole shape of each top.
        batch_size: instead of those in the file.
        lines: where the layers of ``net`` begin (:func:`irv2caffe.proto.text.layer_lines`).
        path: named in errors.
        foreign: look at layer types that Caffe does not have, too, as far as they are known.

    Raises:
        NetError: what Caffe would refuse, with the layer and, where known, its line.
    """
    try:
        chosen = selected(net, phase)
    except NetError as error:
        raise _placed(error, None, path) from error
    layers = chosen.net.layer
    if not layers:
        raise NetError(f"the net has no layers in phase {phase}", path=path)
    places = [lines[o] if o is not None and o < len(lines) else None for o in chosen.origins]
    nodes = [_node(foreign, origin) for origin in chosen.origins]
    wiring = Wiring(layers)
    work = _Inference(wiring, _lookup(data_shapes), batch_size, foreign)
    try:
        wiring.check(foreign=foreign is not None)
        for at, proto in enumerate(layers):
            wiring.at = at
            work.add(proto, places[at], nodes[at])
    except NetError as error:
        error.hint = error.hint or "; ".join(chosen.notes[:3])
        raise _placed(error, places[wiring.at], path) from error
    notes = (*chosen.notes, *wiring.equal_names(), *work.notes)
    made = tuple(work.layers)
    return NetShapes(chosen.net.name, phase, work.blobs, made, notes, tuple(work.unknown))


def _node(foreign: ForkLayers | None, origin: int | None) -> Node | None:
    """A layer as it is written."""
    if foreign is None or origin is None or origin >= len(foreign.nodes):
        return None
    return foreign.nodes[origin]


def _placed(error: NetError, line: int | None, path: Path | None) -> NetError:
    return NetError(error.message, error.hint, layer=error.layer, path=path, line=line)


def _has_unknown(several: Sequence[Shape]) -> bool:
    return any(shape is UNKNOWN for shape in several)


def _frozen(shape: Shape) -> Shape:
    return shape if shape is UNKNOWN else tuple(shape)


def _lookup(data_shapes: RecordShapes | None) -> Callable[[Any], Sequence[Shape]]:
    """Shapes given from outside as a function of the layer."""
    if data_shapes is None:
        return lambda proto: ()  # noqa: ARG005
    if callable(data_shapes):
        return lambda proto: data_shapes(proto) or ()
    known = data_shapes

    def look(proto: Any) -> Sequence[Shape]:
        if proto.bottom and proto.type != "Python":
            return ()
        found = [known[top] for top in proto.top if top in known]
        return found or ([known[proto.name]] if proto.name in known else ())

    return look


class _Inference:
    """Goes through the layers of a net in order, as Net::Init does."""

    def __init__(
        self,
        wiring: Wiring,
        records: Callable[[Any], Sequence[Shape]],
        batch_size: int | None,
        foreign: ForkLayers | None,
    ) -> None:
        self.foreign = foreign
        self.unknown: list[LayerInfo] = []
        self.wiring = wiring
        self.records = records
        self.batch_size = batch_size
        self.batch_type, self.batch_in_file = wiring.first_batch()
        self.blobs: dict[str, Shape] = {}
        self.layers: list[LayerInfo] = []
        self.notes: list[str] = []
        self.shared = SharedWeights()
        # The poolings above each blob whose size Caffe rounded up.
        self.rounded: dict[str, frozenset[str]] = {}

    def add(self, proto: Any, line: int | None, node: Node | None) -> None:
        """Makes one layer."""
        if node is not None and not proto.type:  # the old form has no place for other types
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
            self.records(proto) if rule.bottoms[0] == 0 else (),
            self.notes,
            node,
        )
        check_counts(layer, rule)
        check_loss_weights(layer, rule)
        made = self._made(rule, layer)
        for shape, name in zip(made.tops, names, strict=True):
            layer.verify(shape, f"top {name!r}")
        for number, shape in enumerate(made.params):
            layer.verify(shape, f"weight {number}")
        self.blobs.update(zip(names, map(_frozen, made.tops), strict=True))
        self.layers.append(self._info(layer, made, names, line))
        begins = _has_unknown(made.tops) and not _has_unknown(layer.bottoms)
        if made.partial and (begins or rule.function is unknown):
            self.unknown.append(self.layers[-1])

    def _info(
        self, layer: LayerSetup, made: LayerShapes, names: Sequence[str], line: int | None
    ) -> LayerInfo:
        learned, frozen = self.shared.learned(layer, made)
        at = self.wiring.at
        return LayerInfo(
            name=layer.proto.name,
            type=layer.proto.type,
            bottoms=tuple(layer.proto.bottom),
            tops=tuple(names),
            bottom_shapes=layer.bottoms,
            top_shapes=tuple(map(_frozen, made.tops)),
            top_uses=tuple(self.wiring.uses[at, place] for place in range(len(names))),
            params=tuple(map(tuple, made.params)),
            num_params=learned,
            num_frozen=frozen,
            num_statistics=sum(map(count, made.params)) if made.statistics else 0,
            macs=made.macs,
            line=line,
            proto=layer.proto,
            partial=made.partial,
        )

    def _made(self, rule: ShapeRule, layer: LayerSetup) -> LayerShapes:
        """Runs the rule; branches that do not meet may differ by how their sizes were rounded."""
        if not rule.ignores_bottoms and _has_unknown(layer.bottoms):
            is_number = rule.auto_tops or layer.proto.type == "Accuracy"
            return LayerShapes([() if is_number else UNKNOWN] * layer.num_tops, partial=True)
        above = [self.rounded.get(name, frozenset()) for name in layer.proto.bottom]
        try:
            made = rule.function(layer)
        except NetError as error:
            sizes = {shape[2:] for shape in layer.bottoms}
            culprits = frozenset().union(*above) - frozenset.intersection(*above) if above else ()
            if layer.proto.type in {"Concat", "Eltwise"} and len(sizes) > 1 and culprits:
                error.hint = (
                    "Caffe's pooling rounds up where convolution rounds down: pooling "
                    f"{', '.join(sorted(map(repr, culprits))[:3])} did; take another input size, "
                    "or round_mode: FLOOR, which builds later than Caffe 1.0 know"
                )
            raise
        own = {layer.proto.name} if made.rounded_up else set()
        for name in layer.proto.top:
            self.rounded[name] = frozenset(own).union(*above)
        return made
