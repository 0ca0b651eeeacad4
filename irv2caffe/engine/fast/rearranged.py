"""The step of a rearranged net."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from irv2caffe.engine.fast.fuse import RunningSums, fuse
from irv2caffe.engine.fast.graph import Graph, Op, fold_constants, make_graph
from irv2caffe.engine.fast.merge import merge
from irv2caffe.engine.fast.regions import compile_regions
from irv2caffe.engine.net import Pass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from torch import Tensor

    from irv2caffe.engine.fast.modes import Modes
    from irv2caffe.engine.net import Net


class FastStep:
    """The rearranged net.

    Attributes:
        net: in phase TRAIN.
        graph: its operations.
        sums: the running sums of its BatchNorm layers.
    """

    runs_hooks = True

    def __init__(
        self, net: Net, modes: Modes, *, translate: Callable[[Any], Any] | None = None
    ) -> None:
        self.net = net
        self.modes = modes
        self.sums = RunningSums()
        if modes.channels_last:
            store_channels_last(net)
        graph = fold_constants(make_graph(net))
        if modes.fuse:
            graph = fuse(graph, self.sums)
        if modes.merge:
            graph = merge(graph, self.sums)
        self._halves: list[Tensor] = []
        self._wholes: list[Tensor] = []
        if modes.bf16:
            graph = self._in_bf16(graph)
        if modes.translate:
            least = 2 if modes.translate == "repeated" else 1
            graph = compile_regions(graph, translate or _translate, least=least)
        self.graph: Graph = graph

    def __call__(self, given: Mapping[str, Tensor]) -> Pass:
        """One micro-batch."""
        self._copy_to_bf16()
        with self._autocast():
            loss, outputs = self.graph.run(self._laid_out(given), self.net.device)
        if loss.requires_grad:
            loss.backward()
        self._add_bf16_gradients()
        self.sums.update()
        plain = {name: top.detach() for name, top in outputs.items()}
        return Pass(plain, loss.detach(), plain)

    def _laid_out(self, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if not self.modes.channels_last:
            return given
        last = torch.channels_last
        return {
            k: v.contiguous(memory_format=last) if v.dim() == 4 else v for k, v in given.items()
        }

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self.modes.bf16:
            return nullcontext()
        autocast: AbstractContextManager[Any] = torch.autocast(self.net.device.type, torch.bfloat16)
        return autocast

    def _in_bf16(self, graph: Graph) -> Graph:
        """Gives matrix products copies of their weights in bfloat16, which each step renews."""
        half: dict[int, Tensor] = {}
        for op in graph.ops:
            for layer in op.layers:
                if layer.proto.type in ("Convolution", "Deconvolution", "InnerProduct"):
                    for blob in layer.blobs:
                        half.setdefault(id(blob), self._half(blob))

        def with_halves(op: Op) -> Op:
            return replace(op, params=tuple(half.get(id(p), p) for p in op.params))

        return replace(graph, ops=tuple(map(with_halves, graph.ops)))

    def _half(self, blob: Tensor) -> Tensor:
        copy = blob.detach().to(torch.bfloat16).requires_grad_(blob.requires_grad)
        self._wholes.append(blob)
        self._halves.append(copy)
        return copy

    def _copy_to_bf16(self) -> None:
        if self._halves:
            with torch.no_grad():
                torch._foreach_copy_(self._halves, self._wholes)

    def _add_bf16_gradients(self) -> None:
        pairs = [
            (whole, half)
            for whole, half in zip(self._wholes, self._halves, strict=True)
            if half.grad is not None
        ]
        if not pairs:
            return
        for whole, _ in pairs:
            if whole.grad is None:
                whole.grad = torch.zeros_like(whole)
        sums = [whole.grad for whole, _ in pairs]
        with torch.no_grad():
            torch._foreach_add_(sums, [half.grad.to(torch.float32) for _, half in pairs])
        for _, half in pairs:
            half.grad = None


def store_channels_last(net: Net) -> None:
    """Lays out the weights of 2-D convolutions with the channels innermost; shapes stay.

    Weights that layers share under a name stay as they are, since they share memory.
    """
    blobs = {id(blob): blob for layer in net.layers for blob in layer.blobs}
    uses = Counter(blob.data_ptr() for blob in blobs.values())
    for weight in net.weights.learnable:
        if weight.tensor.dim() == 4 and uses[weight.tensor.data_ptr()] == 1:
            weight.tensor.data = weight.tensor.data.contiguous(memory_format=torch.channels_last)


def _translate(function: Any) -> Any:
    config: Any = import_module("torch._dynamo.config")
    config.recompile_limit = 1024  # one for each kind of region
    config.accumulated_recompile_limit = 4096
    return torch.compile(function, dynamic=False, fullgraph=True)
