"""Folds what is affine into the weights of linear layers, and removes what a device does not need.

All arithmetic is in float64; weights are rounded to float32 once for each layer that is merged.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from irv2caffe.deploy.affine import (
    Affine,
    affine_node,
    affine_of,
    apply_after,
    apply_before,
    can_take,
    can_take_before,
)
from irv2caffe.deploy.constants import border_maps, make_constants
from irv2caffe.deploy.graph import Node, Value
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from irv2caffe.deploy.graph import Graph

_SUM = messages.message_class("EltwiseParameter").SUM


@dataclass
class Folding:
    """What was changed.

    Attributes:
        removed: number of removed layers by type.
        kept: layers that multiply and add, and could not be merged into another.
        coefficients: number of factors of sums that were folded.
        border_maps: names of Scale layers with the borders of a TF-exact average pool.
        plain_pools: names of those that were left out instead.
    """

    removed: dict[str, int] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    coefficients: int = 0
    border_maps: list[str] = field(default_factory=list)
    plain_pools: list[str] = field(default_factory=list)


def simplify(graph: Graph, *, fold: bool = True, plain_average_pool: bool = False) -> Folding:
    """Rewrites a graph for a device.

    Args:
        graph: is changed.
        fold: merge BatchNorm, Scale, and the factors of sums into other layers.
        plain_average_pool: leave out the borders of TF-exact average pools, which changes results.
    """
    before = Counter(node.type for node in graph.nodes)
    result = Folding()
    make_constants(graph)
    _remove_identities(graph)
    for node in border_maps(graph):
        if plain_average_pool:
            graph.replace(node.tops[0], node.bottoms[0])
            graph.nodes.remove(node)
            result.plain_pools.append(node.name)
        else:
            result.border_maps.append(node.name)
    if fold:
        _widen_depthwise(graph)
        result.coefficients = _coefficients_to_layers(graph)
        affines = _merge_into_linear(graph)
        _merge_into_next(graph, affines)
        result.kept = _write_affines(graph, affines)
    result.removed = dict(before - Counter(node.type for node in graph.nodes))
    return result


def _remove_identities(graph: Graph) -> None:
    """Removes Dropout, Split and other layers that pass on what they read."""
    outputs = set(graph.outputs.values())
    kept = []
    for node in graph.nodes:
        if not _is_identity(node):
            kept.append(node)
            continue
        for top in node.tops:
            if top in outputs and node.bottoms[0] not in outputs:
                node.bottoms[0].name = top.name
            graph.replace(top, node.bottoms[0])
    graph.nodes = kept


def _is_identity(node: Node) -> bool:
    if node.type in {"Dropout", "Split"}:
        return True
    param = node.proto.power_param
    is_one = param.power == 1 and param.scale == 1 and param.shift == 0
    return (node.type == "Power" and is_one) or (
        node.type in {"Concat", "Flatten", "Reshape"}
        and len(node.bottoms) == len(node.tops) == 1
        and bool(node.bottoms[0].shape)  # known
        and node.bottoms[0].shape == node.tops[0].shape
    )


def _widen_depthwise(graph: Graph) -> None:
    """Makes the depthwise convolutions of forks convolutions with a group for each channel."""
    for node in graph.nodes:
        if node.type in {"DepthwiseConvolution", "ConvolutionDepthwise"} and node.blobs:
            channels = node.bottoms[0].shape[1]
            node.proto.type = "Convolution"
            node.proto.convolution_param.group = channels
            node.proto.convolution_param.num_output = node.tops[0].shape[1]


def _coefficients_to_layers(graph: Graph) -> int:
    """Puts a Power layer before each bottom of a sum that has a factor; returns their number."""
    nodes: list[Node] = []
    taken = {node.name for node in graph.nodes}
    count = 0
    for node in graph.nodes:
        param = node.proto.eltwise_param
        if node.type == "Eltwise" and param.operation == _SUM and param.coeff:
            for place, factor in enumerate(param.coeff):
                if factor == 1:
                    continue
                bottom = node.bottoms[place]
                name = f"{node.name}_factor" + (f"_{place}" if place != 1 else "")
                while name in taken:  # Caffe finds weights by the names of layers
                    name += "_"
                taken.add(name)
                proto = messages.LayerParameter(name=name, type="Power")
                proto.power_param.scale = factor
                top = Value(name, bottom.shape)
                nodes.append(Node(proto, [bottom], [top]))
                node.bottoms[place] = top
                count += 1
            param.ClearField("coeff")
        nodes.append(node)
    graph.nodes = nodes
    return count


def _merge_into_linear(graph: Graph) -> dict[Node, Affine]:
    """Merges affine layers into the linear or affine layer before them.

    A layer before them that others read, too, stays as it is. The result of both keeps the name of
    the last.

    Returns:
        The affine layers that are left, with what those merged into them do.
    """
    uses = graph.uses()
    producers = graph.producers()
    pending: dict[Node, Affine] = {}  # for linear layers, what is to be merged into them
    left: dict[Node, Affine] = {}
    kept = []
    for node in graph.nodes:
        affine = affine_of(node)
        if affine is None:
            kept.append(node)
            continue
        before = producers.get(node.bottoms[0])
        only = before is not None and uses[node.bottoms[0]] == 1
        if before is not None and only and (before in left or can_take(before, affine)):
            table = left if before in left else pending
            table[before] = table[before].then(affine) if before in table else affine
            before.tops = node.tops
            producers[node.tops[0]] = before
            if before in left:
                before.proto.name = node.name
        else:
            left[node] = affine
            kept.append(node)
    graph.nodes = kept
    for node, affine in pending.items():
        apply_after(node, affine)
    return left


def _merge_into_next(graph: Graph, affines: dict[Node, Affine]) -> None:
    """Merges affine layers into the linear layer after them, if nothing else reads them."""
    uses = graph.uses()
    readers = {value: node for node in graph.nodes for value in node.bottoms}
    for node, affine in list(affines.items()):
        top = node.tops[0]
        after = readers.get(top)
        if after is None or uses[top] != 1 or not can_take_before(after, affine):
            continue
        apply_before(after, affine)
        after.bottoms = node.bottoms
        readers[node.bottoms[0]] = after
        graph.nodes.remove(node)
        del affines[node]


def _write_affines(graph: Graph, affines: dict[Node, Affine]) -> list[str]:
    """Writes the affine layers that are left as Scale layers; returns their names."""
    names = []
    for at, node in enumerate(graph.nodes):
        affine = affines.get(node)
        if affine is None:
            continue
        graph.nodes[at] = affine_node(node.name, affine, node.bottoms[0], node.tops[0])
        names.append(node.name)
    return names
