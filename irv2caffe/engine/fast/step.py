"""A training step: the forward and backward pass of one micro-batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from irv2caffe.engine.fast.modes import PLAIN, Modes, choose_modes
from irv2caffe.engine.fast.rearranged import FastStep
from irv2caffe.engine.fast.record import RecordedStep
from irv2caffe.engine.net import Pass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from irv2caffe.engine.net import Net
    from irv2caffe.engine.options import EngineOptions


class Step(Protocol):
    """Runs forward and backward; adds the gradients to ``weight.tensor.grad``.

    Attributes:
        runs_hooks: each call runs the hooks of the weights that tell when a gradient is complete.
    """

    runs_hooks: bool

    def __call__(self, given: Mapping[str, Tensor]) -> Pass:
        """Takes the tops of the source layers by name; gives outputs and loss without gradients."""


def make_step(
    net: Net,
    options: EngineOptions,
    group: object = None,  # noqa: ARG001
    *,
    modes: Modes | None = None,
) -> Step:
    """The fastest step that the options and the device allow.

    Args:
        net: in phase TRAIN, on its device.
        options: ``exact`` and ``precision`` decide.
        group: the processes that train together.
        modes: instead of those that follow from the options.
    """
    modes = modes if modes is not None else choose_modes(options, net.device)
    if net.device.type == "cuda":
        is_tf32 = options.precision != "fp32"
        torch.backends.cuda.matmul.allow_tf32 = is_tf32
        torch.backends.cudnn.allow_tf32 = is_tf32
        torch.backends.cudnn.benchmark = True
    if modes == PLAIN or net.force_backward:
        return PlainStep(net)
    step = FastStep(net, modes)
    if modes.record and net.device.type == "cuda":
        return RecordedStep(step)
    return step


class PlainStep:
    """Layer by layer in float32."""

    runs_hooks = True

    def __init__(self, net: Net) -> None:
        self.net = net

    def __call__(self, given: Mapping[str, Tensor]) -> Pass:
        """One micro-batch."""
        result = self.net.forward(given)
        if result.loss.requires_grad:
            result.loss.backward()
        outputs = {name: top.detach() for name, top in result.outputs.items()}
        return Pass(outputs, result.loss.detach(), outputs)
