"""A step that starts at once and is compiled later, if so much is left to do that this pays."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from irv2caffe.engine.fast.protocol import Step
    from irv2caffe.engine.net import Pass

WATCHED = (5, 25)  # the calls between which the time of a step is measured
PAYS_S = 900.0
"""How much time must be left: slim took 114 s to compile on an H100, and a quarter less then."""


class LaterStep:
    """Compiles once, after its first calls, or never."""

    def __init__(
        self,
        plain: Step,
        compiled: Callable[[], Step],
        steps: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Starts with the plain step.

        Args:
            plain: runs until then, and for good if compiling fails.
            compiled: makes the other one.
            steps: how many calls are to come.
            clock: seconds.
        """
        self._step = plain
        self._compiled = compiled
        self._steps = steps
        self._clock = clock
        self._calls = 0
        self._start_s = 0.0

    @property
    def runs_hooks(self) -> bool:
        """As of the step that runs now."""
        return self._step.runs_hooks

    def __call__(self, given: Mapping[str, Tensor]) -> Pass:
        """One micro-batch."""
        self._calls += 1
        if self._calls == WATCHED[0]:
            self._start_s = self._now()
        elif self._calls == WATCHED[1]:
            each = (self._now() - self._start_s) / (WATCHED[1] - WATCHED[0])
            if each * (self._steps - self._calls) > PAYS_S:
                return self._change(given)
        return self._step(given)

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self._clock()

    def _change(self, given: Mapping[str, Tensor]) -> Pass:
        try:
            step: Any = self._compiled()
            result: Pass = step(given)
        except Exception as error:  # noqa: BLE001 whatever the compiler throws, training goes on
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            sys.stderr.write(f"torch.compile failed, training goes on without it: {reason}\n")
            return self._step(given)
        self._step = step
        return result
