"""What all steps have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from irv2caffe.engine.net import Pass


class Step(Protocol):
    """Runs forward and backward; adds the gradients to ``weight.tensor.grad``.

    Attributes:
        runs_hooks: each call runs the hooks of the weights that tell when a gradient is complete.
    """

    @property
    def runs_hooks(self) -> bool: ...  # noqa: D102

    def __call__(self, given: Mapping[str, Tensor]) -> Pass:
        """Takes the tops of the source layers by name; gives outputs and loss without gradients."""
