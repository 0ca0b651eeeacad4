"""Losses and gradients of the CPU beside those of the GPU, from the same weights.

The truth is the gradient in float64, computed on the GPU layer by layer. A gradient of this net in
float32 is far less exact than its loss; how far, the lines of the CPU and of the plain GPU show.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from gpu_parts.nets import random_batch, slim
from irv2caffe.engine.fast import PLAIN, Modes, choose_modes, make_step
from irv2caffe.engine.options import EngineOptions

if TYPE_CHECKING:
    from gpu_check import Report
    from torch import Tensor

BATCH = 4
STEPS = 3
RATE = 0.02
EXACT = EngineOptions()
FUSED = Modes(merge=False, channels_last=False)


def run(report: Report, args: Any) -> None:  # noqa: ARG001
    """Reports losses of a few steps of plain gradient descent, and the first gradient's error."""
    torch.set_num_threads(min(8, torch.get_num_threads()))
    start, true_losses, truth, true_sums = train(EXACT, "cuda", None, PLAIN, double=True)
    report.add("GPU, float64", true_losses, "loss")
    for name, device, options, modes in ways():
        _, losses, gradient, sums = train(options, device, start, modes)
        drift = max(abs(a - b) / abs(a) for a, b in zip(true_losses, losses, strict=True))
        first = abs(losses[0] - true_losses[0]) / true_losses[0]
        errors = [first, drift, _error(gradient, truth), _error(sums, true_sums)]
        report.add(f"{name}: first loss, drift, gradient, running sums", errors)


def ways() -> list[tuple[str, str, EngineOptions, Modes]]:
    """What is compared: a name, a device, options and modes."""
    gpu = torch.device("cuda")
    exact = choose_modes(EXACT, gpu)
    faster = [EngineOptions(exact=False, precision=precision) for precision in ("tf32", "bf16")]
    return [
        ("CPU, layer by layer", "cpu", EXACT, PLAIN),
        ("GPU, layer by layer", "cuda", EXACT, PLAIN),
        ("GPU, exact", "cuda", EXACT, exact),
        ("GPU, exact, not recorded", "cuda", EXACT, replace(exact, record=False)),
        ("GPU, fused", "cuda", EXACT, FUSED),
        ("GPU, fused, recorded", "cuda", EXACT, replace(FUSED, record=True)),
        ("GPU, fused, channels_last", "cuda", EXACT, replace(FUSED, channels_last=True)),
        ("GPU, fused, merged", "cuda", EXACT, replace(FUSED, merge=True)),
        *(
            (f"GPU, {each.precision}", "cuda", each, replace(choose_modes(each, gpu), translate=""))
            for each in faster
        ),
    ]


def _error(mine: Tensor, truth: Tensor) -> float:
    return float((mine.double() - truth).norm() / truth.norm())


def train(
    options: EngineOptions,
    device: str,
    start: list[Tensor] | None,
    modes: Modes,
    *,
    double: bool = False,
) -> tuple[list[Tensor], list[float], Tensor, Tensor]:
    """The weights before, the losses, the first gradient, the running sums after the first step."""
    net = slim(BATCH, options, device, dropout=False)
    weights = [weight.tensor for weight in net.weights.learnable]
    with torch.no_grad():
        for tensor, value in zip(weights, start or [], strict=False):
            tensor.copy_(value)
    begin = [tensor.detach().cpu().clone() for tensor in weights]
    given = random_batch(BATCH, device)
    if double:
        for tensor in weights:
            tensor.data = tensor.data.double()
        given = {name: tensor.double() for name, tensor in given.items()}
        torch.set_default_dtype(torch.float64)
    step = make_step(net, options, modes=modes)
    losses, gradients, sums = [], torch.zeros(0), torch.zeros(0)
    learned = [tensor for tensor in weights if tensor.requires_grad]
    for number in range(STEPS):
        losses.append(step(given).loss.item())
        if not number:
            gradients = torch.cat([t.grad.detach().flatten().cpu() for t in learned])
            others = [t.flatten().cpu() for t in weights if not t.requires_grad]
            sums = torch.cat(others).clone()
        with torch.no_grad():
            for tensor in learned:
                tensor.sub_(tensor.grad, alpha=RATE)
                tensor.grad = None
    torch.set_default_dtype(torch.float32)
    return begin, losses, gradients, sums
