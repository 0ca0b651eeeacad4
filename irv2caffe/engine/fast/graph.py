"""The layers of a net as operations on values, each value written once, ready to be rearranged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from irv2caffe.engine.layer import LAYERS, Layer
from irv2caffe.engine.net import SOURCES, loss_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from irv2caffe.engine.net import Net


@dataclass(frozen=True)
class Op:
    """One operation; several layers after fusing.

    Attributes:
        call: takes ``params``, then the bottoms; gives a tuple of tops.
        params: the weights and other tensors that it needs.
        bottoms: numbers of the values that it reads.
        tops: numbers of the values that it writes.
        layers: what it stands for.
        key: equal for two operations that differ in their tensors only; None for one that must
            run as it is.
    """

    call: Callable[..., tuple[Tensor, ...]]
    params: tuple[Tensor, ...]
    bottoms: tuple[int, ...]
    tops: tuple[int, ...]
    layers: tuple[Layer, ...]
    key: Any = None

    @property
    def types(self) -> tuple[str, ...]:
        """The types of its layers."""
        return tuple(layer.proto.type for layer in self.layers)


@dataclass(frozen=True)
class Graph:
    """A net in one phase.

    Attributes:
        ops: in an order in which they can run; without the source layers.
        constants: values that are the same in every pass.
        given: number of each value that the caller gives, by its name.
        outputs: numbers of the tops that no layer reads, by name.
        losses: numbers of values that count in the loss, with their loss weights.
    """

    ops: tuple[Op, ...]
    given: dict[str, int]
    outputs: dict[str, int]
    losses: tuple[tuple[int, float], ...]
    constants: dict[int, Tensor] = field(default_factory=dict)

    @property
    def kept(self) -> set[int]:
        """Values that are needed after all operations."""
        return set(self.outputs.values()) | {value for value, _ in self.losses}

    @cached_property
    def uses(self) -> Counter[int]:
        """How often each value is read, once more if it is kept."""
        return Counter([v for op in self.ops for v in op.bottoms] + list(self.kept))

    def reader(self, value: int) -> Op | None:
        """The operation that alone reads a value; None if there are more uses."""
        return self._readers[value][0] if self.uses[value] == 1 and value in self._readers else None

    @cached_property
    def _readers(self) -> dict[int, list[Op]]:
        readers: dict[int, list[Op]] = {}
        for op in self.ops:
            for value in op.bottoms:
                readers.setdefault(value, []).append(op)
        return readers

    def run(
        self, given: Mapping[str, Tensor], device: torch.device
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and the outputs, from the tops of the source layers by name."""
        values = {number: given[name] for name, number in self.given.items()} | self.constants
        kept = self.kept
        left = Counter(value for op in self.ops for value in op.bottoms)
        for op in self.ops:
            bottoms = [values[number] for number in op.bottoms]
            left.subtract(op.bottoms)
            for number in op.bottoms:
                if not left[number] and number not in kept:
                    values.pop(number, None)
            values.update(zip(op.tops, op.call(op.params, *bottoms), strict=True))
            del bottoms
        loss = torch.zeros((), device=device)
        for number, weight in self.losses:
            loss = loss + weight * values[number].sum()
        return loss, {name: values[number] for name, number in self.outputs.items()}


def make_graph(net: Net) -> Graph:
    """The operations of a net, one for each layer; a top in place is a new value."""
    now: dict[str, int] = {}
    ops: list[Op] = []
    given: dict[str, int] = {}
    losses: list[tuple[int, float]] = []
    count = 0
    for layer in net.layers:
        bottoms = tuple(now[name] for name in layer.info.bottoms)
        tops = tuple(range(count, count + len(layer.info.tops)))
        count += len(tops)
        now.update(zip(layer.info.tops, tops, strict=True))
        if layer.proto.type in SOURCES:
            given.update(zip(layer.info.tops, tops, strict=True))
        else:
            ops.append(Op(_caller(layer), tuple(layer.blobs), bottoms, tops, (layer,), _key(layer)))
        weights = loss_weights(layer.info)
        losses += [(top, w) for top, w in zip(tops, weights, strict=True) if w]
    outputs = {name: now[top] for name, top in net.outputs.items()}
    return Graph(tuple(ops), given, outputs, tuple(losses))


def fold_constants(graph: Graph) -> Graph:
    """Computes once what depends on constants only, such as the sizes of windows of a pooling."""
    constants = dict(graph.constants)
    ops: list[Op] = []
    for op in graph.ops:
        is_constant = all(value in constants for value in op.bottoms)
        if is_constant and not op.params and _is_constant(op.layers[0]):
            with torch.no_grad():
                tops = op.call(op.params, *(constants[value] for value in op.bottoms))
            constants.update(zip(op.tops, tops, strict=True))
        else:
            ops.append(op)
    return replace(graph, ops=tuple(ops), constants=constants)


def _is_constant(layer: Layer) -> bool:
    """Whether a layer without bottoms, or with constant ones, gives the same in every pass."""
    if layer.proto.type == "DummyData":
        fillers = layer.proto.dummy_data_param.data_filler
        return all(filler.type == "constant" for filler in fillers)
    return layer.proto.type in _PURE


_PURE = frozenset({"Concat", "Eltwise", "Flatten", "Pooling", "Power", "Reshape", "Scale"})
# Layers whose backward pass is that of torch's own operations.
_PLAIN = frozenset({"Concat", "Convolution", "Pooling", "ReLU", "Scale"})


def _key(layer: Layer) -> Any:
    """Equal for layers that do the same with other tensors; None for those that stay alone."""
    if layer.proto.type not in _PLAIN or layer.proto.propagate_down or len(layer.info.tops) > 1:
        return None
    if layer.proto.type == "ReLU" and layer.param.negative_slope:
        return None
    proto = type(layer.proto)()
    proto.CopyFrom(layer.proto)
    for name in ("name", "bottom", "top", "param", "include", "exclude", "phase", "loss_weight"):
        proto.ClearField(name)
    return (layer.proto.type, proto.SerializeToString(), layer.info.bottom_shapes)


def _caller(layer: Layer) -> Callable[..., tuple[Tensor, ...]]:
    function = LAYERS[layer.proto.type].function
    stops = [place for place, goes_on in enumerate(layer.proto.propagate_down) if not goes_on]

    def call(params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        given = [b.detach() if at in stops else b for at, b in enumerate(bottoms)]
        tops = function(replace(layer, blobs=list(params)), *given)
        return tops if isinstance(tops, tuple) else (tops,)

    return call
