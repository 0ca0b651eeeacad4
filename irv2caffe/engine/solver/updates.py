"""Updates of the weights from their gradients (sgd_solver.cpp and its siblings).

The order is Caffe's: gradients are clipped by their global L2 norm, divided by iter_size,
regularized, turned into an update by the solver type, and subtracted. All operations take lists of
tensors: few kernels for many weights on a GPU.
"""

# ruff: noqa: SLF001 - torch's functions on lists begin with an underscore
from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from irv2caffe.engine.solver.solver_types import SOLVER_TYPES, Scalars, check_solver_type
from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from irv2caffe.engine.weights import Weight

# Values of weights updated at once: on the CPU they stay in its cache, on a GPU few kernels do all.
_MOST_VALUES = {"cpu": 1 << 18, "cuda": 1 << 24}
_REGULARIZATIONS = ("L1", "L2")


class Clipped(NamedTuple):
    """Gradients were scaled down.

    Attributes:
        norm: their L2 norm before.
        factor: what they were multiplied with.
    """

    norm: float
    factor: float


class Update:
    """Updates weights after each iteration.

    Attributes:
        history: Caffe's history blobs: for each learnable weight one, for AdaDelta and Adam a
            second one after those of all weights.
    """

    def __init__(self, param: Any, weights: Sequence[Weight]) -> None:
        """Checks the solver and makes empty histories.

        Args:
            param: a SolverParameter; its ``type`` is set.
            weights: the learnable weights of the net, in Caffe's order.

        Raises:
            UsageError: what Caffe refuses.
        """
        check_solver_type(param)
        if param.weight_decay and param.regularization_type not in _REGULARIZATIONS:
            raise UsageError(
                f"Unknown regularization type: {param.regularization_type}", "use L2 or L1"
            )
        self._param = param
        self._type = SOLVER_TYPES[param.type]
        self._weights = list(weights)
        self._values = [weight.tensor.detach() for weight in weights]
        self.history = [
            torch.zeros_like(value)
            for _ in range(self._type.num_histories)
            for value in self._values
        ]
        # Statistics and frozen weights have no gradient, but weight decay may give them one.
        self._absent: dict[int, Tensor] = {}
        self._all = [*range(len(self._values))]
        self._batches = [*self._neighbours()]

    def clear_gradients(self) -> None:
        """Sets all gradients to zero in place, before they are added up over iter_size."""
        torch._foreach_zero_([*map(self._gradient, self._all)])

    def apply(self, rate: float, iteration: int) -> Clipped | None:
        """Updates all weights; returns what was clipped.

        Args:
            rate: the learning rate.
            iteration: from 0; Adam corrects its averages by it.
        """
        with torch.no_grad():
            clipped = self._clip()
            for indices in self._batches:
                self._update(indices, rate, iteration)
        return clipped

    def _gradient(self, index: int) -> Tensor:
        gradient = self._weights[index].tensor.grad
        if gradient is not None:
            return gradient
        if index not in self._absent:
            self._absent[index] = torch.zeros_like(self._values[index])
        return self._absent[index]

    def _clip(self) -> Clipped | None:
        """Scales all gradients so that their L2 norm is at most ``clip_gradients``."""
        limit = self._param.clip_gradients
        if limit < 0:
            return None
        gradients = [*map(self._gradient, self._all)]
        norms = torch._foreach_norm(gradients)
        norm = torch.linalg.vector_norm(torch.stack(norms)).item()
        if not norm > limit:
            return None
        factor = limit / norm
        torch._foreach_mul_(gradients, factor)
        return Clipped(norm, factor)

    def _neighbours(self) -> Iterator[list[int]]:
        """Weights to be updated at once: neighbours in groups of equal multipliers."""
        groups: dict[tuple[float, float], list[int]] = {}
        for index, weight in enumerate(self._weights):
            groups.setdefault((weight.lr_mult, weight.decay_mult), []).append(index)
        for group in groups.values():
            most = _MOST_VALUES[self._values[group[0]].device.type]
            room, batch = most, list[int]()
            for index in group:
                count = self._values[index].numel()
                if batch and count > room:
                    yield batch
                    room, batch = most, []
                room -= count
                batch.append(index)
            yield batch

    def _update(self, indices: list[int], rate: float, iteration: int) -> None:
        """Normalize, Regularize, ComputeUpdateValue and Update for weights of equal multipliers."""
        weight = self._weights[indices[0]]
        values = [self._values[index] for index in indices]
        gradients = [*map(self._gradient, indices)]
        if self._param.iter_size > 1:
            torch._foreach_mul_(gradients, 1 / self._param.iter_size)
        decay = self._param.weight_decay * weight.decay_mult
        if decay:
            of = values if self._param.regularization_type == "L2" else _signs(values)
            torch._foreach_add_(gradients, of, alpha=decay)
        histories = [
            [self.history[number * len(self._values) + index] for index in indices]
            for number in range(self._type.num_histories)
        ]
        scalars = Scalars(self._param, rate * weight.lr_mult, iteration)
        self._type.update(values, gradients, *histories, scalars)


def _signs(values: Iterable[Tensor]) -> list[Tensor]:
    return [torch.sign(value) for value in values]
