"""Averaged weights for tests (``--ema``), as the paper's authors evaluated their nets."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from irv2caffe.engine.model_files import load_model, save_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from irv2caffe.engine.net import Net
    from irv2caffe.engine.solver.log_lines import Log

AVERAGED = ".ema.caffemodel"
"""The suffix of the file with averaged weights, beside that of a snapshot."""


class AveragedWeights:
    """Exponential moving averages of all weights of a net, BatchNorm's statistics included.

    The decay of update n is ``min(decay, (1 + n) / (10 + n))``, as in TensorFlow's
    ExponentialMovingAverage with num_updates, so that the first weights are soon forgotten.
    """

    def __init__(self, net: Net, decay: float) -> None:
        self._net = net
        self._decay = decay
        self._values = [weight.tensor.detach() for weight in net.weights.learnable]
        self._averages = [value.clone() for value in self._values]
        self._is_in_use = False

    def update(self, iteration: int) -> None:
        """Takes the weights of the net after an update.

        Args:
            iteration: number of updates so far.
        """
        decay = min(self._decay, (1 + iteration) / (10 + iteration))
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)

    def in_use(self) -> AbstractContextManager[None]:
        """Within the block the net has the averaged weights."""
        return self._exchanged(True)

    def set_aside(self) -> AbstractContextManager[None]:
        """Within the block the net has its own weights, also during a test."""
        return self._exchanged(False)

    @contextmanager
    def _exchanged(self, wanted: bool) -> Iterator[None]:
        before = self._is_in_use
        self._exchange(wanted)
        try:
            yield
        finally:
            self._exchange(before)

    def _exchange(self, wanted: bool) -> None:
        if wanted != self._is_in_use:
            self._is_in_use = wanted
            for value, average in zip(self._values, self._averages, strict=True):
                own = value.clone()
                value.copy_(average)
                average.copy_(own)

    def save(self, path: Path) -> None:
        """Writes a ``.caffemodel`` with the averaged weights."""
        with self.in_use():
            save_model(path, self._net)

    def restore(self, state: Path, log: Log) -> None:
        """Continues from the file beside a solver state; from the net's weights without one."""
        path = state.with_name(f"{state.stem}{AVERAGED}")
        if path.exists():
            log.say("ema.py:1", f"Restoring averaged weights from {path}")
            with self.in_use():
                load_model(path, self._net)
        else:
            log.say("ema.py:1", f"{path} is missing: averages start again", "W")
            torch._foreach_copy_(self._averages, self._values)
