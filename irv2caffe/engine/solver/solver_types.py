"""The solver types: how a gradient becomes an update of a weight (src/caffe/solvers).

Each function takes lists of weights, gradients and histories, changes weights and histories in
place, and may use the gradients as working memory.
"""

# ruff: noqa: SLF001 - torch's functions on lists begin with an underscore
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from irv2caffe.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

Tensors = list[Tensor]


class Scalars:
    """The numbers of an update.

    Attributes:
        rate: learning rate times ``lr_mult``.
        momentum: AdaDelta's decay, and Adam's first one.
        iteration: from 0.
    """

    def __init__(self, param: Any, rate: float, iteration: int) -> None:
        self.rate = rate
        self.iteration = iteration
        self.momentum: float = param.momentum
        self.momentum2: float = param.momentum2
        self.rms_decay: float = param.rms_decay
        self.delta: float = param.delta


def _sgd(weights: Tensors, gradients: Tensors, history: Tensors, by: Scalars) -> None:
    """``h = momentum h + rate g; w -= h`` (sgd_solver.cpp)."""
    torch._foreach_mul_(history, by.momentum)
    torch._foreach_add_(history, gradients, alpha=by.rate)
    torch._foreach_sub_(weights, history)


def _nesterov(weights: Tensors, gradients: Tensors, history: Tensors, by: Scalars) -> None:
    """``h' = momentum h + rate g; w -= (1 + momentum) h' - momentum h`` (nesterov_solver.cpp)."""
    torch._foreach_add_(weights, history, alpha=by.momentum)
    torch._foreach_mul_(history, by.momentum)
    torch._foreach_add_(history, gradients, alpha=by.rate)
    torch._foreach_sub_(weights, history, alpha=1 + by.momentum)


def _adagrad(weights: Tensors, gradients: Tensors, history: Tensors, by: Scalars) -> None:
    """``h += g^2; w -= rate g / (sqrt(h) + delta)`` (adagrad_solver.cpp)."""
    torch._foreach_addcmul_(history, gradients, gradients)
    _subtract_scaled(weights, gradients, history, by)


def _rmsprop(weights: Tensors, gradients: Tensors, history: Tensors, by: Scalars) -> None:
    """``h = d h + (1 - d) g^2; w -= rate g / (sqrt(h) + delta)`` (rmsprop_solver.cpp)."""
    torch._foreach_mul_(history, by.rms_decay)
    torch._foreach_addcmul_(history, gradients, gradients, value=1 - by.rms_decay)
    _subtract_scaled(weights, gradients, history, by)


def _subtract_scaled(weights: Tensors, gradients: Tensors, squares: Tensors, by: Scalars) -> None:
    divisors = torch._foreach_sqrt(squares)
    torch._foreach_add_(divisors, by.delta)
    torch._foreach_addcdiv_(weights, gradients, divisors, value=-by.rate)


def _adadelta(
    weights: Tensors, gradients: Tensors, squares: Tensors, updates: Tensors, by: Scalars
) -> None:
    """Zeiler's rule times the rate, with momentum as its decay (adadelta_solver.cpp).

    ``s = m s + (1 - m) g^2; v = g sqrt((u + delta) / (s + delta)); u = m u + (1 - m) v^2;
    w -= rate v``.
    """
    torch._foreach_mul_(squares, by.momentum)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - by.momentum)
    factors = torch._foreach_add(updates, by.delta)
    torch._foreach_div_(factors, torch._foreach_add(squares, by.delta))
    torch._foreach_sqrt_(factors)
    torch._foreach_mul_(gradients, factors)
    torch._foreach_mul_(updates, by.momentum)
    torch._foreach_addcmul_(updates, gradients, gradients, value=1 - by.momentum)
    torch._foreach_sub_(weights, gradients, alpha=by.rate)


def _adam(
    weights: Tensors, gradients: Tensors, means: Tensors, squares: Tensors, by: Scalars
) -> None:
    """Kingma and Ba's rule; delta is added to the root, not corrected (adam_solver.cpp)."""
    torch._foreach_mul_(means, by.momentum)
    torch._foreach_add_(means, gradients, alpha=1 - by.momentum)
    torch._foreach_mul_(squares, by.momentum2)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - by.momentum2)
    time = by.iteration + 1
    correction = math.sqrt(1 - by.momentum2**time) / (1 - by.momentum**time)
    divisors = torch._foreach_sqrt(squares)
    torch._foreach_add_(divisors, by.delta)
    torch._foreach_addcdiv_(weights, means, divisors, value=-by.rate * correction)


@dataclass(frozen=True)
class SolverType:
    """A solver type.

    Attributes:
        update: updates weights from gradients and histories.
        num_histories: history blobs for each weight.
        takes_momentum: False where Caffe refuses a momentum.
    """

    update: Callable[..., None]
    num_histories: int = 1
    takes_momentum: bool = True


SOLVER_TYPES = {
    "SGD": SolverType(_sgd),
    "Nesterov": SolverType(_nesterov),
    "AdaGrad": SolverType(_adagrad, takes_momentum=False),
    "RMSProp": SolverType(_rmsprop, takes_momentum=False),
    "AdaDelta": SolverType(_adadelta, num_histories=2),
    "Adam": SolverType(_adam, num_histories=2),
}


def check_solver_type(param: Any) -> None:
    """Checks the type of a solver and the fields that it reads.

    Raises:
        UsageError: what Caffe refuses.
    """
    kind = param.type
    if kind not in SOLVER_TYPES:
        hint = did_you_mean(kind, SOLVER_TYPES) or f"one of {', '.join(SOLVER_TYPES)}"
        raise UsageError(f"Unknown solver type: {kind}", hint)
    if param.momentum and not SOLVER_TYPES[kind].takes_momentum:
        raise UsageError(f"Momentum cannot be used with {kind}.", "remove momentum from the solver")
    if kind == "RMSProp" and not 0 <= param.rms_decay < 1:
        raise UsageError(
            "rms_decay should lie between 0 and 1.", f"the solver has {param.rms_decay:g}"
        )
    if kind == "Adam" and not max(param.momentum, param.momentum2) < 1:
        raise UsageError(
            "Adam: momentum and momentum2 must be less than 1",
            f"the solver has {param.momentum:g} and {param.momentum2:g}",
        )
