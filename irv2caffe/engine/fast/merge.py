"""Sibling 1x1 convolutions that read the same bottom become one convolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from irv2caffe.engine.fast.fuse import Normal, RunningSums, batch_norm
from irv2caffe.engine.fast.graph import Graph, Op

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Siblings:
    """The fixed part of a merged convolution.

    Attributes:
        widths: numbers of outputs of the convolutions.
        bias: they have a bias.
        normal: what follows each of them; None for nothing.
    """

    widths: tuple[int, ...]
    bias: bool
    normal: Normal | None


def convolve(siblings: Siblings, params: Sequence[Tensor], x: Tensor) -> tuple[Tensor, ...]:
    """One convolution with all weights.

    Args:
        siblings: what is merged.
        params: the statistics' buffers where BatchNorm follows; then the weights of all
            convolutions, their biases, the weights of all Scale layers, their biases.
        x: the common bottom.
    """
    number = len(siblings.widths)
    given = list(params)
    buffers = [given.pop(0), given.pop(0)] if siblings.normal is not None else []
    kinds = [torch.cat(given[at : at + number]) for at in range(0, len(given), number)]
    weight = kinds.pop(0)
    y = functional.conv2d(x, weight, kinds.pop(0) if siblings.bias else None)
    if siblings.normal is not None:
        (y,) = batch_norm(siblings.normal, [*buffers, *kinds], y)
    return tuple(y.split(siblings.widths, dim=1))


def merge(graph: Graph, sums: RunningSums) -> Graph:
    """Merges convolutions of one kernel, stride and group over the same value."""
    families: dict[object, list[Op]] = {}
    for op in graph.ops:
        if _is_pointwise(op):
            normal = _normal_after(graph, op)
            key = (op.bottoms, len(op.params), normal.key if normal is not None else None)
            families.setdefault(key, []).append(op)
    merged: dict[int, Op | None] = {}
    for family in families.values():
        if len(family) > 1:
            merged.update(_merged(graph, family, sums))
    ops = [merged.get(id(op), op) for op in graph.ops]
    return replace(graph, ops=tuple(op for op in ops if op is not None))


def _is_pointwise(op: Op) -> bool:
    if op.types != ("Convolution",):
        return False
    layer = op.layers[0]
    shape, param = layer.info.params[0], layer.param
    return (
        len(shape) == 4
        and tuple(shape[2:]) == (1, 1)
        and param.group == 1
        and param.axis == 1
        and not any([*param.pad, param.pad_h, param.pad_w])
        and all(s == 1 for s in [*param.stride, param.stride_h or 1, param.stride_w or 1])
        and not layer.proto.propagate_down
    )


def _normal_after(graph: Graph, op: Op) -> Op | None:
    reader = graph.reader(op.tops[0])
    return reader if reader is not None and isinstance(reader.key, Normal) else None


def _merged(graph: Graph, family: list[Op], sums: RunningSums) -> dict[int, Op | None]:
    """What stands in the place of each operation of a family, by id; None for nothing."""
    parts = [[op, *filter(None, [_normal_after(graph, op)])] for op in family]
    widths = tuple(op.layers[0].info.params[0][0] for op in family)
    last = [part[-1] for part in parts]
    normal = last[0].key if isinstance(last[0].key, Normal) else None
    siblings = Siblings(widths, len(family[0].params) == 2, normal)
    params = sums.join([op.params[:2] for op in last]) if normal is not None else []
    for place in range(len(family[0].params)):
        params += [op.params[place] for op in family]
    for place in range(2, len(last[0].params) if normal is not None else 0):
        params += [op.params[place] for op in last]
    whole = Op(
        partial(convolve, siblings),
        tuple(params),
        family[0].bottoms,
        tuple(top for op in last for top in op.tops),
        tuple(layer for part in parts for op in part for layer in op.layers),
        siblings,
    )
    gone: dict[int, Op | None] = {id(op): None for part in parts for op in part}
    return {**gone, id(family[0]): whole}
