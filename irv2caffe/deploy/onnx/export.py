"""Writes a graph as an ONNX file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe import __version__
from irv2caffe.atomic import write_bytes
from irv2caffe.deploy.constants import border_maps
from irv2caffe.deploy.onnx.model import OnnxModel
from irv2caffe.deploy.onnx.operators import OPERATORS, unsupported
from irv2caffe.deploy.onnx.writing import BATCH, Writing
from irv2caffe.errors import NetError, OutputError, first_of
from irv2caffe.proto.binary import LIMIT_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.deploy.graph import Graph, Node


def write_onnx(graph: Graph, path: Path) -> int:
    """Writes a graph as ONNX, with an open batch size; returns the size in bytes.

    TF-exact average pools become an average pool that does not count padding.

    Args:
        graph: as it is written for Caffe, named by :meth:`Graph.to_net`.
        path: the file.

    Raises:
        NetError: layers that cannot be written; all are named.
        OutputError: larger than 2 GiB, or the file cannot be written.
    """
    if wrong := [node for node in graph.nodes if node.type != "Input" and unsupported(node)]:
        names = [f"{node.type} (layer {node.name!r})" for node in wrong]
        raise NetError(f"cannot be written as ONNX: {first_of(names, 5)}", layer=wrong[0].name)
    exact = _exact_pools(graph)
    inputs = [value for node in graph.nodes if node.type == "Input" for value in node.tops]
    batch = inputs[0].shape[0]
    w = Writing(OnnxModel(graph.name or "net"), batch, set(exact.values()))
    for value in [*inputs, *dict.fromkeys(graph.outputs.values())]:
        w.names[value] = w.name(value.name)
    for node in graph.nodes:
        if node in exact:
            w.names[node.tops[0]] = w.bottom(node)
        elif node.type != "Input":
            OPERATORS[node.type](w, node)
    for table, values in ((w.model.inputs, inputs), (w.model.outputs, graph.outputs.values())):
        for value in dict.fromkeys(values):
            shape: list[int | str] = list(value.shape)
            if shape and shape[0] == batch:
                shape[0] = BATCH
            table.append((w.names[value], shape))
    data = w.model.to_bytes("irv2caffe", __version__)
    if len(data) > LIMIT_BYTES:
        raise OutputError(f"cannot write {path}: more than the 2 GiB that protobuf can hold")
    write_bytes(path, data)
    return len(data)


def _exact_pools(graph: Graph) -> dict[Node, Node]:
    """The average pool of each Scale that corrects its borders, if nothing else reads it."""
    uses, producers = graph.uses(), graph.producers()
    outputs = set(graph.outputs.values())
    return {
        node: producers[node.bottoms[0]]
        for node in border_maps(graph)
        if uses[node.bottoms[0]] == 1 and node.tops[0] not in outputs
    }
