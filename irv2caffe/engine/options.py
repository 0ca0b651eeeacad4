"""Options of the torch engine besides those of the solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True)
class EngineOptions:
    """What the engine may change against Caffe; the defaults change nothing.

    Attributes:
        exact: compute what Caffe computes, within float error; excludes the faster modes.
        precision: ``fp32``, ``tf32`` (matrix products of float32 with 10 bits of mantissa) or
            ``bf16`` (autocast; statistics of BatchNorm, losses and weights stay float32).
        sync_bn: BatchNorm computes its statistics over the batches of all processes.
        shuffle: read each epoch in another random order.
        augment: ``inception`` for random area, aspect ratio and colours of training images.
        ema: decay of the averaged weights that tests use; None for none.
        label_smoothing: share of the target that is spread over all classes.
        skip_corrupt: leave out records that cannot be read, and count them.
        data_threads: threads that decode images; None chooses.
        debug_layers: print each layer as it runs.
        stop_after: the layer after which the first forward pass ends; empty for none.
        compile: on a GPU, and not with ``exact``, compile the net where this pays.
    """

    exact: bool = True
    precision: Precision = "fp32"
    sync_bn: bool = False
    shuffle: bool = False
    augment: str = ""
    ema: float | None = None
    label_smoothing: float = 0.0
    skip_corrupt: bool = False
    data_threads: int | None = None
    debug_layers: bool = False
    stop_after: str = ""
    compile: bool = True
