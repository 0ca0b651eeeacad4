"""What is shown of a training: smoothed losses, rates, outputs of the nets."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from irv2caffe.engine.net import loss_weights
from irv2caffe.engine.solver.log_lines import number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from irv2caffe.engine.net import Net, Pass


class SmoothedLoss:
    """The mean loss of the last ``average_loss`` iterations (Solver::UpdateSmoothedLoss).

    It is computed on the device of the losses, so that no iteration waits for its loss.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._losses: list[Tensor] = []
        self._count = 0
        self._mean: Tensor | None = None

    def add(self, loss: Tensor) -> None:
        """Takes the loss of the next iteration, a scalar."""
        if self._mean is None:
            self._mean = torch.zeros_like(loss)
        if len(self._losses) < self._window:
            self._losses.append(loss)
            size = len(self._losses)
            self._mean = (self._mean * (size - 1) + loss) / size
        else:
            # A NaN stays for ever, as in Caffe.
            place = self._count % self._window
            self._mean = self._mean + (loss - self._losses[place]) / self._window
            self._losses[place] = loss
        self._count += 1

    def value(self) -> float:
        """The mean; waits for the device."""
        return float(self._mean.item()) if self._mean is not None else 0.0


class Lap:
    """Iterations per second since the last display."""

    def __init__(self, iteration: int) -> None:
        self._iteration = iteration
        self._start = time.perf_counter()

    def next(self, iteration: int) -> tuple[float, float]:
        """Returns (iterations per second, seconds), and starts again."""
        now = time.perf_counter()
        seconds = now - self._start
        rate = (iteration - self._iteration) / (seconds or 1)
        self._iteration, self._start = iteration, now
        return rate, seconds


@dataclass(frozen=True)
class Scores:
    """The result of a test.

    Attributes:
        outputs: name, loss weight and mean values of each output.
        loss: the mean loss.
    """

    outputs: list[tuple[str, float, Sequence[float]]]
    loss: float


def mean_outputs(
    net: Net,
    batch: Callable[[], Mapping[str, Tensor]],
    count: int,
    is_interrupted: Callable[[], bool],
) -> Scores | None:
    """The means of a test net's outputs over several batches; None if interrupted."""
    total: Tensor | None = None
    result: Pass | None = None
    loss = torch.zeros((), device=net.device)
    for _ in range(count):
        if is_interrupted():
            return None
        with torch.no_grad():
            result = net.forward(batch())
        values = flatten(result.outputs, net.device)
        total = values if total is None else total + values
        loss = loss + result.loss
    if result is None or total is None:
        return Scores([], math.nan)
    means = (total / count).tolist()
    return Scores([*named_values(net, result.outputs, means)], loss.item() / count)


def flatten(outputs: Mapping[str, Tensor], device: torch.device) -> Tensor:
    """All values of all outputs, one after the other."""
    parts = [top.detach().float().flatten() for top in outputs.values()]
    return torch.cat(parts) if parts else torch.zeros(0, device=device)


def named_values(
    net: Net, outputs: Mapping[str, Tensor], values: Sequence[float]
) -> Iterator[tuple[str, float, Sequence[float]]]:
    """Name, loss weight and values of each output, from all values of :func:`flatten`."""
    weights = {
        blob: weight
        for info in net.shapes.layers
        for blob, weight in zip(info.tops, loss_weights(info), strict=True)
    }
    start = 0
    for name, top in outputs.items():
        yield name, weights[net.outputs[name]], values[start : start + top.numel()]
        start += top.numel()


def debug_lines(net: Net) -> Iterator[str]:
    """What ``debug_info`` shows of the weights (Net::ForwardDebugInfo, Net::Backward).

    The lines of the tops are those of ``--debug-layers``.
    """
    with torch.no_grad():
        for weight in net.weights.learnable:
            mean = number(weight.tensor.abs().mean().item())
            yield f"    [Forward] Layer {weight.layer}, param blob {weight.index} data: {mean}"
        values = [weight.tensor.detach() for weight in net.weights.learnable]
        gradients = [weight.tensor.grad for weight in net.weights.learnable]
        norms = [
            f"L{order} norm = ({_norm(values, order)}, {_norm(gradients, order)})"
            for order in (1, 2)
        ]
    yield f"    [Backward] All net params (data, diff): {'; '.join(norms)}"


def _norm(tensors: Iterable[Tensor | None], order: int) -> str:
    norms = [torch.linalg.vector_norm(each, order) for each in tensors if each is not None]
    return number(torch.linalg.vector_norm(torch.stack(norms), order).item() if norms else 0.0)
