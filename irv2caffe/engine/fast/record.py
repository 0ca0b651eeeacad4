"""A step recorded as a CUDA graph, so that the GPU does not wait for Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from irv2caffe.engine.net import Pass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from irv2caffe.engine.fast.rearranged import FastStep

WARM_UPS = 3  # passes before recording, in which libraries choose their kernels


class RecordedStep:
    """Replays the step that the first call recorded.

    Inputs and gradients have fixed places. Inputs of other shapes run without the recording.
    """

    runs_hooks = False

    def __init__(self, step: FastStep) -> None:
        self._step = step
        self._graph: torch.cuda.CUDAGraph | None = None
        self._given: dict[str, Tensor] = {}
        self._weights = [w.tensor for w in step.net.weights.learnable if w.tensor.requires_grad]
        self._statistics = [
            w.tensor for w in step.net.weights.learnable if not w.tensor.requires_grad
        ]
        self._gradients: list[Tensor] = []
        self._result: Pass | None = None

    def __call__(self, given: Mapping[str, Tensor]) -> Pass:
        """One micro-batch."""
        if self._graph is None:
            self._record(given)
        self._place_gradients()
        shapes = {name: tensor.shape for name, tensor in given.items()}
        if shapes != {name: tensor.shape for name, tensor in self._given.items()}:
            return self._step(given)
        for name, tensor in given.items():
            self._given[name].copy_(tensor, non_blocking=True)
        assert self._graph is not None
        assert self._result is not None
        self._graph.replay()
        outputs = {name: top.clone() for name, top in self._result.outputs.items()}
        return Pass(outputs, self._result.loss.clone(), outputs)

    def _record(self, given: Mapping[str, Tensor]) -> None:
        last = torch.channels_last if self._step.modes.channels_last else torch.contiguous_format
        self._given = {
            name: tensor.clone(memory_format=last if tensor.dim() == 4 else torch.contiguous_format)
            for name, tensor in given.items()
        }
        self._gradients = [_gradient(tensor) for tensor in self._weights]
        changed = [*self._gradients, *self._statistics]
        before = [tensor.clone() for tensor in changed]
        random = torch.cuda.get_rng_state()
        try:
            self._graph = self._captured()
        finally:
            torch.cuda.set_rng_state(random)
            with torch.no_grad():
                torch._foreach_copy_(changed, before)

    def _captured(self) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._step(self._given)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        mode = "thread_local"  # other threads may copy data meanwhile
        with torch.cuda.graph(graph, stream=stream, capture_error_mode=mode):
            self._result = self._step(self._given)
        return graph

    def _place_gradients(self) -> None:
        """Puts the gradients so far where the recording adds to them."""
        new = [
            (tensor, place)
            for tensor, place in zip(self._weights, self._gradients, strict=True)
            if tensor.grad is not place
        ]
        if not new:
            return
        with torch.no_grad():
            torch._foreach_zero_([place for _, place in new])
        for tensor, place in new:
            if tensor.grad is not None:
                place.copy_(tensor.grad)
            tensor.grad = place


def _gradient(tensor: Tensor) -> Tensor:
    """The gradient of a weight, which gets one of zeros if it has none."""
    if tensor.grad is None:
        tensor.grad = torch.zeros_like(tensor)
    return tensor.grad
