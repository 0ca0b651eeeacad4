"""A training step: the forward and backward pass of one micro-batch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from irv2caffe.engine.fast.later import LaterStep
from irv2caffe.engine.fast.modes import PLAIN, Modes, choose_modes
from irv2caffe.engine.fast.rearranged import FastStep
from irv2caffe.engine.fast.record import RecordedStep
from irv2caffe.engine.net import Pass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from irv2caffe.engine.fast.protocol import Step
    from irv2caffe.engine.net import Net
    from irv2caffe.engine.options import EngineOptions


def make_step(
    net: Net,
    options: EngineOptions,
    group: object = None,  # noqa: ARG001
    *,
    modes: Modes | None = None,
    steps: int | None = None,
) -> Step:
    """The fastest step that the options and the device allow.

    Args:
        net: in phase TRAIN, on its device.
        options: ``exact`` and ``precision`` decide.
        group: the processes that train together.
        modes: instead of those that follow from the options.
        steps: how many steps are to come. Only if they take long is the net compiled, after the
            first ones; None compiles it at once.
    """
    modes = modes if modes is not None else choose_modes(options, net.device)
    if net.device.type == "cuda":
        is_tf32 = options.precision != "fp32"
        torch.backends.cuda.matmul.allow_tf32 = is_tf32
        torch.backends.cudnn.allow_tf32 = is_tf32
        torch.backends.cudnn.benchmark = True
    if modes == PLAIN or net.force_backward:
        return PlainStep(net)
    if modes.translate and steps is not None:
        plain = _fast(net, replace(modes, translate=""))
        return LaterStep(plain, lambda: _fast(net, modes), steps)
    return _fast(net, modes)


def _fast(net: Net, modes: Modes) -> Step:
    step = FastStep(net, modes)
    return RecordedStep(step) if modes.record and net.device.type == "cuda" else step


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
