"""Layers that become one operation: BatchNorm, Scale and ReLU; Eltwise and ReLU.

The numbers stay those of the single layers but for rounding. BatchNorm's statistics of a batch are
left in a buffer, from which :class:`RunningSums` updates the blobs as batch_norm_layer.cpp does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from irv2caffe.engine.fast.graph import Graph, Op

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.engine.layer import Layer


class RunningSums:
    """The running sums of all fused BatchNorm layers."""

    def __init__(self) -> None:
        # by moving_average_fraction: the blobs, and for each of them what a batch adds
        self._by_fraction: dict[float, tuple[list[Tensor], list[Tensor]]] = {}

    def add(self, layer: Layer) -> tuple[Tensor, Tensor]:
        """Takes a BatchNorm layer; the buffers for the mean and variance of a batch."""
        mean, variance = (torch.zeros_like(blob) for blob in layer.blobs[:2])
        sums, batch = self._by_fraction.setdefault(layer.param.moving_average_fraction, ([], []))
        sums += layer.blobs
        batch += [mean, variance, torch.ones_like(layer.blobs[2])]
        return mean, variance

    def join(self, buffers: list[tuple[Tensor, ...]]) -> list[Tensor]:
        """Puts buffers of several layers side by side: one for their means, one for variances."""
        joint = []
        for kind in zip(*buffers, strict=True):
            whole = torch.cat(kind)
            joint.append(whole)
            parts = whole.split([len(part) for part in kind])
            new = {id(old): part for old, part in zip(kind, parts, strict=True)}
            for _, batch in self._by_fraction.values():
                batch[:] = [new.get(id(tensor), tensor) for tensor in batch]
        return joint

    def update(self) -> None:
        """Adds the statistics of the last batch: ``sum = fraction * sum + statistic``."""
        with torch.no_grad():
            for fraction, (sums, batch) in self._by_fraction.items():
                torch._foreach_mul_(sums, fraction)
                torch._foreach_add_(sums, batch)


@dataclass(frozen=True)
class Normal:
    """The fixed part of a fused BatchNorm.

    Attributes:
        eps: added to the variance.
        scaled: there is a weight.
        shifted: there is a bias.
        relu: negative values become 0.
    """

    eps: float
    scaled: bool
    shifted: bool
    relu: bool


def batch_norm(normal: Normal, params: Sequence[Tensor], x: Tensor) -> tuple[Tensor, ...]:
    """Normalises by the batch's statistics, which it leaves in the first two ``params``."""
    rest = list(params[2:])
    weight = rest.pop(0) if normal.scaled else None
    bias = rest.pop(0) if normal.shifted else None
    # momentum 1 makes the running statistics those of this batch; the variance is unbiased
    y = torch.native_batch_norm(x, weight, bias, params[0], params[1], True, 1.0, normal.eps)[0]
    return (torch.relu_(y) if normal.relu else y,)


def eltwise(
    coefficients: tuple[float, ...],
    relu: bool,
    params: Sequence[Tensor],  # noqa: ARG001
    *xs: Tensor,
) -> tuple[Tensor, ...]:
    """The weighted sum of two bottoms, without its negative values if ``relu``."""
    first = xs[0] if coefficients[0] == 1 else xs[0] * coefficients[0]
    y = torch.add(first, xs[1], alpha=coefficients[1])
    return (torch.relu_(y) if relu else y,)


def fuse(graph: Graph, sums: RunningSums) -> Graph:
    """Fuses what can be fused.

    Args:
        graph: of a net in phase TRAIN.
        sums: takes the BatchNorm layers that were fused.
    """
    ops: list[Op] = []
    gone: set[int] = set()  # ids of operations that are part of another
    for op in graph.ops:
        if id(op) in gone:
            continue
        fused = op
        if _is_batch_norm(op):
            fused = _fused_batch_norm(graph, op, sums, gone)
        elif _is_sum_of_two(op):
            fused = _fused_eltwise(graph, op, gone)
        ops.append(fused)
    return replace(graph, ops=tuple(ops))


def _is_batch_norm(op: Op) -> bool:
    if op.types != ("BatchNorm",):
        return False
    layer = op.layers[0]
    param = layer.param
    is_global = (
        param.use_global_stats if param.HasField("use_global_stats") else layer.phase != "TRAIN"
    )
    shape = layer.info.bottom_shapes[0]
    count = 1
    for dim in (shape[0], *shape[2:]):
        count *= dim
    return not is_global and len(shape) >= 2 and count > 1 and not layer.options.sync_bn


def _fused_batch_norm(graph: Graph, op: Op, sums: RunningSums, gone: set[int]) -> Op:
    layers, tops = [*op.layers], op.tops
    params = list(sums.add(op.layers[0]))
    scale = graph.reader(tops[0])
    has_bias = False
    if scale is not None and _is_channel_scale(scale):
        layers += scale.layers
        params += scale.params
        has_bias = scale.layers[0].param.bias_term
        tops = scale.tops
        gone.add(id(scale))
    else:
        scale = None
    relu = _plain_relu(graph, tops[0])
    if relu is not None:
        layers += relu.layers
        tops = relu.tops
        gone.add(id(relu))
    normal = Normal(op.layers[0].param.eps, scale is not None, has_bias, relu is not None)
    return Op(partial(batch_norm, normal), tuple(params), op.bottoms, tops, tuple(layers), normal)


def _is_channel_scale(op: Op) -> bool:
    """Whether an operation multiplies each channel by a weight of its own."""
    if op.types != ("Scale",) or len(op.bottoms) != 1:
        return False
    layer = op.layers[0]
    return bool(layer.param.axis == 1 and layer.param.num_axes == 1)


def _plain_relu(graph: Graph, value: int) -> Op | None:
    """The ReLU without slope that alone reads a value."""
    op = graph.reader(value)
    if op is None or op.types != ("ReLU",) or op.layers[0].param.negative_slope:
        return None
    return op


def _is_sum_of_two(op: Op) -> bool:
    if op.types != ("Eltwise",) or len(op.bottoms) != 2:
        return False
    param = op.layers[0].param
    return bool(param.operation == param.SUM) and not op.layers[0].proto.propagate_down


def _fused_eltwise(graph: Graph, op: Op, gone: set[int]) -> Op:
    relu = _plain_relu(graph, op.tops[0])
    coefficients = tuple(op.layers[0].param.coeff) or (1.0, 1.0)
    if coefficients[0] != 1 and coefficients[1] == 1:
        coefficients = coefficients[::-1]
        op = replace(op, bottoms=op.bottoms[::-1])
    key = (coefficients, relu is not None)
    tops, layers = op.tops, op.layers
    if relu is not None:
        gone.add(id(relu))
        tops, layers = relu.tops, layers + relu.layers
    return Op(partial(eltwise, *key), (), op.bottoms, tops, layers, ("Eltwise", *key))
