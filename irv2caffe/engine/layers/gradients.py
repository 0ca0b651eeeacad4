"""Backward passes of Caffe's that are not the derivative of the forward pass, or need less memory.

A function of this module is an autograd function; layers call its ``apply``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import Function

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from irv2caffe.engine.layer import Layer


class GivenSlope(Function):  # type: ignore[misc]
    """``y`` as the value of a function of ``x`` whose derivative is ``slope``; all of one shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, slope: Tensor) -> Tensor:  # noqa: ARG004
        """The value."""
        ctx.save_for_backward(slope)
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of ``x``."""
        (slope,) = ctx.saved_tensors
        return grads[0] * slope, None, None


class LostGradient(Function):  # type: ignore[misc]
    """As GivenSlope, for layers in place that overwrite the gradient before they multiply by it.

    The slope lies where the gradient of the top was, so that its square remains.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, slope: Tensor) -> Tensor:  # noqa: ARG004
        """The value."""
        ctx.save_for_backward(slope)
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: ARG004
        """The square of the slope."""
        (slope,) = ctx.saved_tensors
        return slope.square(), None, None


def with_caffes_slope(
    layer: Layer,
    x: Tensor,
    value: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor, Tensor], Tensor],
    *,
    loses_gradient: bool = False,
) -> Tensor:
    """A function of each element with the derivative that Caffe computes from bottom and top.

    In place, Caffe's backward pass finds the top where it expects the bottom.

    Args:
        layer: one with a single bottom and top.
        x: the bottom.
        value: the top from the bottom.
        slope: the derivative from bottom and top.
        loses_gradient: writes the slope into the bottom's gradient first; in place, that is the
            top's.
    """
    is_in_place = layer.info.in_place
    with torch.no_grad():
        y = value(x)
        derivative = slope(y if is_in_place else x, y)
    return apply(LostGradient if is_in_place and loses_gradient else GivenSlope, x, y, derivative)


def apply(function: type[Function], *arguments: Any) -> Tensor:
    """``function.apply``, which torch leaves without types."""
    result: Tensor = function.apply(*arguments)
    return result


class TargetLoss(Function):  # type: ignore[misc]
    """``-sum(targets * log(max(softmax(scores), floor)))`` over axis 1; losses.py says whose.

    The gradient is ``softmax(scores) * sum(targets) - targets``, without regard to the floor, as in
    softmax_loss_layer.cpp and infogain_loss_layer.cpp.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, targets: Tensor, log_floor: float) -> Tensor:
        """The sum over all items; a scalar."""
        log_p = torch.log_softmax(scores, 1)
        ctx.save_for_backward(log_p, targets)
        return -(targets * log_p.clamp(min=log_floor)).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the scores."""
        log_p, targets = ctx.saved_tensors
        return (log_p.exp() * targets.sum(1, keepdim=True) - targets) * grads[0], None, None


class Normalize(Function):  # type: ignore[misc]
    """Rows less their mean, over their standard deviation plus ``eps`` (mvn_layer.cpp).

    The backward pass takes ``top`` for ``(x - mean) / deviation``, without ``eps``.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, eps: float) -> Tensor:
        """Rows of mean 0 and deviation 1."""
        centred = rows - rows.mean(1, keepdim=True)
        divisor = centred.square().mean(1, keepdim=True).sqrt() + eps
        top = centred / divisor
        ctx.save_for_backward(top, divisor)
        return top

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The gradient of the rows."""
        top, divisor = ctx.saved_tensors
        grad = grads[0]
        along_top = (grad * top).mean(1, keepdim=True) * top
        return (grad - grad.mean(1, keepdim=True) - along_top) / divisor, None


class UnstableProduct(Function):  # type: ignore[misc]
    """A product whose gradients are top / bottom: NaN at zero (eltwise_layer.cpp)."""

    @staticmethod
    def forward(ctx: Any, *bottoms: Tensor) -> Tensor:
        """The product of all bottoms."""
        ctx.save_for_backward(*bottoms)
        return product(*bottoms)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        """The gradients of all bottoms."""
        top = product(*ctx.saved_tensors)
        return tuple(top / bottom * grads[0] for bottom in ctx.saved_tensors)


def product(*bottoms: Tensor) -> Tensor:
    """The product of tensors of one shape, from the first to the last."""
    top = bottoms[0] * bottoms[1]
    for bottom in bottoms[2:]:
        top = top * bottom
    return top
