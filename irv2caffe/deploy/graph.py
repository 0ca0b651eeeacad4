"""A net with its weights as a graph that can be rewritten and written again.

A layer in place produces a new value here, as every layer does, so that rewriting need not care
for names; :meth:`Graph.to_net` finds the names again.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import FormatError, WeightsError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array, read_array, read_fitting_array
from irv2caffe.proto.caffemodel import ModelFile, write_model
from irv2caffe.shapes.infer import ForkLayers, infer
from irv2caffe.shapes.phases import select

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from irv2caffe.shapes.infer import LayerInfo
    from irv2caffe.shapes.layer_types import Shape

_FUSED_BLOBS = 5  # of NVCaffe's BatchNorm: mean, variance, factor, scale, bias


@dataclass(eq=False)
class Value:
    """What a layer produces: the name of its blob, which others may share, and its shape."""

    name: str
    shape: Shape


@dataclass(eq=False)
class Node:
    """A layer with its weights.

    Attributes:
        proto: its LayerParameter; bottoms, tops and blobs in it do not count.
        bottoms: the values that it reads.
        tops: the values that it produces.
        blobs: its weights, float32.
    """

    proto: Any
    bottoms: list[Value]
    tops: list[Value]
    blobs: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def type(self) -> str:
        """Type of the layer."""
        return str(self.proto.type)

    @property
    def name(self) -> str:
        """Name of the layer."""
        return str(self.proto.name)


@dataclass
class Graph:
    """A net in the phase TEST.

    Attributes:
        name: of the net.
        nodes: the layers, in an order in which they can run.
        outputs: the values that are wanted, by the names of their blobs in the original net.
        notes: what the user should know of what was read.
    """

    name: str
    nodes: list[Node]
    outputs: dict[str, Value]
    notes: list[str] = field(default_factory=list)

    def copy(self) -> Graph:
        """A copy that can be rewritten; the arrays are shared, since they are never changed."""
        shared = {id(blob): blob for node in self.nodes for blob in node.blobs}
        return copy.deepcopy(self, shared)

    def uses(self) -> Counter[Value]:
        """How often each value is read, by layers and as an output."""
        read = Counter(value for node in self.nodes for value in node.bottoms)
        read.update(self.outputs.values())
        return read

    def producers(self) -> dict[Value, Node]:
        """The layer that produces each value."""
        return {value: node for node in self.nodes for value in node.tops}

    def replace(self, old: Value, new: Value) -> None:
        """Lets all readers of a value read another one."""
        for node in self.nodes:
            node.bottoms = [new if value is old else value for value in node.bottoms]
        self.outputs = {
            name: new if value is old else value for name, value in self.outputs.items()
        }

    def remove_unused(self) -> None:
        """Removes layers from which no output is reached."""
        live = set(self.outputs.values())
        kept = []
        for node in reversed(self.nodes):
            if not live.isdisjoint(node.tops):
                kept.append(node)
                live.update(node.bottoms)
        self.nodes = kept[::-1]

    def num_parameters(self) -> int:
        """Number of values in all weights."""
        return sum(blob.size for node in self.nodes for blob in node.blobs)

    def to_net(self) -> Any:
        """A NetParameter without weights; sets the name of each value to that of its blob.

        A layer works in place where it did and still may; else a name that is taken gets a number.
        """
        net = messages.NetParameter(name=self.name)
        uses = self.uses()
        taken: dict[str, Value] = {}  # the last value of each name
        for node in self.nodes:
            layer = net.layer.add()
            layer.CopyFrom(node.proto)
            layer.ClearField("blobs")
            for value in node.tops:
                value.name = self._blob_name(node, value, taken, uses)
                taken[value.name] = value
            layer.bottom[:] = [value.name for value in node.bottoms]
            layer.top[:] = [value.name for value in node.tops]
        return net

    def _blob_name(
        self, node: Node, value: Value, taken: dict[str, Value], uses: Counter[Value]
    ) -> str:
        before = taken.get(value.name)
        at = node.tops.index(value)
        is_own = at < len(node.bottoms) and node.bottoms[at] is before
        if before is None or (is_own and uses[before] == 1 and node.type not in _NOT_IN_PLACE):
            return value.name
        numbered = (f"{value.name}_{number}" for number in range(2, len(self.nodes) + 3))
        return next(name for name in numbered if name not in taken)

    def layers(self, net: Any) -> Iterator[Any]:
        """The layers of :meth:`to_net` with their weights, for a ``.caffemodel``."""
        for layer, node in zip(net.layer, self.nodes, strict=True):
            full = messages.LayerParameter()
            full.CopyFrom(layer)
            full.blobs.extend(blob_from_array(blob) for blob in node.blobs)
            yield full

    def write_weights(self, path: Path, net: Any) -> int:
        """Writes the ``.caffemodel``; returns its size in bytes."""
        return write_model(path, net, self.layers(net))


# Layers of which Caffe refuses to have a bottom as top.
_NOT_IN_PLACE = frozenset(
    {"Convolution", "Deconvolution", "InnerProduct", "Pooling", "Concat", "Slice", "AbsVal", "Crop"}
)


def read_graph(net: Any, weights: Path, outputs: Sequence[str]) -> Graph:
    """Reads a net with its weights, as it is in the phase TEST.

    Args:
        net: a NetParameter, also of formats before Caffe 1.0.
        weights: the ``.caffemodel``.
        outputs: names of the blobs that are wanted.

    Raises:
        NetError: what Caffe would refuse.
        FormatError: no such blob, or a damaged model.
        WeightsError: weights that are missing or of another shape.
    """
    chosen = select(net, "TEST")
    shapes = infer(chosen, "TEST", foreign=ForkLayers())
    model = ModelFile(weights)
    last: dict[str, Value] = {}
    nodes = []
    notes: list[str] = []
    problems: list[str] = []
    for info in shapes.layers:
        bottoms = [last[name] for name in info.bottoms]
        tops = [Value(*each) for each in zip(info.tops, info.top_shapes, strict=True)]
        last.update((value.name, value) for value in tops)
        nodes.append(Node(_plain(info.proto), bottoms, tops))
    if missing := [name for name in outputs if name not in last]:
        raise FormatError(f"the net has no blob {missing[0]!r}")
    graph = Graph(shapes.name, nodes, {name: last[name] for name in outputs}, notes)
    by_node = dict(zip(nodes, shapes.layers, strict=True))
    graph.remove_unused()
    for node in graph.nodes:
        node.blobs = _read_blobs(model, by_node[node], problems)
    if problems:
        hint = "is it the model of this net?"
        raise WeightsError(f"{weights} does not fit the net", tuple(problems), hint)
    _use_statistics(graph)
    return graph


def _plain(layer: Any) -> Any:
    """A copy of a layer without what only training needs."""
    plain = messages.LayerParameter()
    plain.CopyFrom(layer)
    for name in ("include", "exclude", "phase", "param", "loss_weight", "propagate_down", "blobs"):
        plain.ClearField(name)
    for field_, value in list(plain.ListFields()):
        if field_.name.endswith("_param"):
            for name in ("weight_filler", "bias_filler", "filler", "moving_average_fraction"):
                if name in value.DESCRIPTOR.fields_by_name:
                    value.ClearField(name)
    return plain


def _read_blobs(
    model: ModelFile, info: LayerInfo, problems: list[str]
) -> list[NDArray[np.float32]]:
    """The weights of a layer; adds a line to ``problems`` where they are not those of the net."""
    found = model.blobs(info.name)
    if info.type in {"Input", "DummyData"} or (not info.params and not info.partial):
        return []
    is_fused = info.type == "BatchNorm" and len(found) == _FUSED_BLOBS
    if len(found) != len(info.params) and not is_fused and not info.partial:
        problems.append(f"{info.name}: {len(found)} blobs in the model, {len(info.params)} needed")
        return []
    shapes: Iterable[Any] = info.params
    if is_fused:
        shapes = [*info.params, info.params[0], info.params[0]]
    elif info.partial:
        shapes = [None] * len(found)
    blobs = []
    for blob, shape in zip(found, shapes, strict=True):
        try:
            array = read_array(blob) if shape is None else read_fitting_array(blob, shape)
        except FormatError as error:
            problems.append(f"{info.name}: {error.message}")
            return []
        blobs.append(array.astype("f4", copy=False))
    return blobs


def _use_statistics(graph: Graph) -> None:
    """Lets every BatchNorm use its running statistics, whatever the training net says."""
    batch = [
        node
        for node in graph.nodes
        if node.type == "BatchNorm"
        and node.proto.batch_norm_param.HasField("use_global_stats")
        and not node.proto.batch_norm_param.use_global_stats
    ]
    for node in batch:
        node.proto.batch_norm_param.ClearField("use_global_stats")
    if batch:
        graph.notes.append(
            f"{len(batch)} BatchNorm layers use the statistics of the batch also in tests "
            "(use_global_stats: false); the bundle uses their running statistics, as a device must"
        )
