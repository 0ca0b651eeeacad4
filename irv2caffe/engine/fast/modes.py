"""Which means of speed a step uses."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from irv2caffe.engine.options import EngineOptions


@dataclass(frozen=True)
class Modes:
    """Means of speed.

    Attributes:
        fuse: one operation for BatchNorm, Scale and ReLU, and for Eltwise and ReLU.
        merge: one convolution for sibling 1x1 convolutions.
        channels_last: images in memory with the channels innermost.
        translate: torch.compile for blocks: for those that ``repeat``, or for ``all``.
        record: a CUDA graph of the whole step.
        bf16: convolutions and matrix products in bfloat16.
    """

    fuse: bool = True
    merge: bool = True
    channels_last: bool = True
    translate: Literal["", "repeated", "all"] = ""
    record: bool = False
    bf16: bool = False


PLAIN = Modes(fuse=False, merge=False, channels_last=False)


def choose_modes(options: EngineOptions, device: torch.device) -> Modes:
    """The modes for options and a device; those of ``--exact`` keep the order of sums."""
    if options.debug_layers or options.stop_after:
        return PLAIN
    is_gpu = device.type == "cuda"
    is_fast = is_gpu and not options.exact
    return Modes(
        merge=is_fast,
        # cuDNN's gradients of float32 images in this layout had the errors of tf32 on an H100.
        channels_last=is_fast and options.precision != "fp32",
        translate="all" if is_fast and options.compile and can_translate() else "",
        record=is_gpu and not options.sync_bn,  # its messages cannot be recorded everywhere
        bf16=options.precision == "bf16",
    )


def can_translate() -> bool:
    """Whether torch.compile finds what it needs: triton and a C compiler."""
    return find_spec("triton") is not None and any(map(shutil.which, ("cc", "gcc", "clang")))
