"""Learning rates (sgd_solver.cpp, GetLearningRate), rounded to float32 as in Caffe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

_WITH_GAMMA = {"step", "exp", "inv", "multistep", "sigmoid"}
_WITH_STEPSIZE = {"step", "sigmoid"}


class LearningRate:
    """The learning rate of each iteration.

    Attributes:
        current_step: number of steps that the policies ``step`` and ``multistep`` have taken; kept
            in snapshots.
    """

    def __init__(self, param: Any) -> None:
        """Checks the fields of a SolverParameter that its policy reads.

        Raises:
            UsageError: an unknown policy, or a value that Caffe refuses.
        """
        self._param = param
        self.current_step = 0
        policy = param.lr_policy
        if policy not in _RATES:
            hint = did_you_mean(policy, _RATES) or f"one of {', '.join(_RATES)}"
            raise UsageError(f"Unknown learning rate policy: {policy}", hint)
        if policy in _WITH_GAMMA and param.gamma < 0:
            raise UsageError(f"lr_policy {policy}: gamma is {param.gamma:g}", "it must not be < 0")
        if policy in _WITH_STEPSIZE and param.stepsize <= 0:
            raise UsageError(f"lr_policy {policy}: stepsize is {param.stepsize}", "it must be > 0")

    def rate(self, iteration: int) -> float:
        """The rate of an iteration; to be called once in each, since ``multistep`` counts."""
        self._advance(iteration)
        with np.errstate(all="ignore"):
            rate = _RATES[self._param.lr_policy](self._param, iteration, self.current_step)
            return float(np.float32(rate))

    def _advance(self, iteration: int) -> None:
        """Counts the steps; ``multistep`` takes at most one in an iteration, as Caffe does."""
        if self._param.lr_policy == "step":
            self.current_step = iteration // self._param.stepsize
        elif self._param.lr_policy == "multistep":
            steps = self._param.stepvalue
            if self.current_step < len(steps) and iteration >= steps[self.current_step]:
                self.current_step += 1


def _power(base: float, exponent: float) -> Any:
    """C's pow, which overflows to infinity instead of raising an error."""
    return np.power(np.float64(base), np.float64(exponent))


def _stepped(param: Any, _: int, step: int) -> Any:
    return param.base_lr * _power(param.gamma, step)


# Functions of the SolverParameter, the iteration and the step.
_RATES: dict[str, Callable[[Any, int, int], Any]] = {
    "fixed": lambda param, _, __: param.base_lr,
    "step": _stepped,
    "exp": lambda param, iteration, _: param.base_lr * _power(param.gamma, iteration),
    "inv": lambda param, iteration, _: (
        param.base_lr * _power(1 + param.gamma * iteration, -param.power)
    ),
    "multistep": _stepped,
    "poly": lambda param, iteration, _: (
        param.base_lr * _power(1 - np.float64(iteration) / param.max_iter, param.power)
    ),
    "sigmoid": lambda param, iteration, _: (
        param.base_lr / (1 + np.exp(-param.gamma * np.float64(iteration - param.stepsize)))
    ),
}
