"""Prints what each layer computes, for ``--debug-layers``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import torch

from irv2caffe.shapes.layer_types.base import shape_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from irv2caffe.engine.layer import Layer


def print_layer(layer: Layer, tops: Sequence[Tensor], start_s: float) -> None:
    """Prints a layer's shapes, the mean of its tops' absolute values, and its time, on stderr.

    Args:
        layer: that has run.
        tops: its result.
        start_s: when it began, by :func:`time.perf_counter`.
    """
    if layer.device.type == "cuda":
        torch.cuda.synchronize(layer.device)
    taken_ms = 1000 * (time.perf_counter() - start_s)
    info = layer.info
    bottoms = ", ".join(map(shape_text, info.bottom_shapes))
    results = ", ".join(
        f"{shape_text(top.shape)} {name} data: {top.detach().abs().mean().item():g}"
        for name, top in zip(info.tops, tops, strict=True)
    )
    line = f"Layer {info.name} ({info.type}) {bottoms} -> {results}, {taken_ms:.1f} ms"
    sys.stderr.write(f"    [Forward] {line}\n")
