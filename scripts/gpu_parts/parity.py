"""Losses and gradients of the CPU beside those of the GPU, from the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gpu_parts.nets import random_batch, slim
from irv2caffe.engine.fast import PLAIN, Modes, make_step
from irv2caffe.engine.options import EngineOptions

if TYPE_CHECKING:
    from gpu_check import Report
    from torch import Tensor

BATCH = 4
STEPS = 3
RATE = 0.02


def run(report: Report, args: Any) -> None:  # noqa: ARG001
    """Reports losses of a few steps of plain gradient descent, and the first gradient's error."""
    exact = EngineOptions()
    torch.set_num_threads(min(8, torch.get_num_threads()))
    report.add("CPU threads", torch.get_num_threads())
    start, losses, gradient, sums = train(exact, "cpu", None, PLAIN, report)
    report.add("CPU, each layer by itself", losses, "loss")
    ways = {
        "GPU, exact": (exact, None),
        "GPU, exact, each layer by itself": (
            exact,
            PLAIN,
        ),
        "GPU, tf32": (EngineOptions(exact=False, precision="tf32"), None),
        "GPU, bf16": (EngineOptions(exact=False, precision="bf16"), None),
    }
    for name, (options, modes) in ways.items():
        _, mine, other, others_sums = train(options, "cuda", start, modes, report)
        drift = max(abs(a - b) / abs(a) for a, b in zip(losses, mine, strict=True))
        error = float((other - gradient).norm() / gradient.norm())
        first = abs(mine[0] - losses[0]) / losses[0]
        of_sums = float((others_sums - sums).norm() / sums.norm())
        report.add(name, mine, "loss")
        names = f"first loss, drift in {STEPS} steps, gradient, running sums"
        report.add(f"{name}: {names}", [first, drift, error, of_sums])


def train(
    options: EngineOptions,
    device: str,
    start: list[Tensor] | None,
    modes: Modes | None,
    report: Report,
) -> tuple[list[Tensor], list[float], Tensor, Tensor]:
    """The weights before, the losses, the first gradient, the running sums after the first step."""
    net = slim(BATCH, options, device, dropout=False)
    weights = [weight.tensor for weight in net.weights.learnable]
    with torch.no_grad():
        for tensor, value in zip(weights, start or [], strict=False):
            tensor.copy_(value)
    begin = [tensor.detach().cpu().clone() for tensor in weights]
    step = make_step(net, options, modes=modes)
    given = random_batch(BATCH, device)
    losses, gradients, sums = [], torch.zeros(0), torch.zeros(0)
    report.add("set up", device)
    learned = [tensor for tensor in weights if tensor.requires_grad]
    for number in range(STEPS):
        losses.append(step(given).loss.item())
        report.add(f"{device}, {options.precision}: loss of step {number}", losses[-1])
        if not number:
            gradients = torch.cat([t.grad.detach().flatten().cpu() for t in learned])
            others = [t.flatten().cpu() for t in weights if not t.requires_grad]
            sums = torch.cat(others).clone()
        with torch.no_grad():
            for tensor in learned:
                tensor.sub_(tensor.grad, alpha=RATE)
                tensor.grad = None
    return begin, losses, gradients, sums
