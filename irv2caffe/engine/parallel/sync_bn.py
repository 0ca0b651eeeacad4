"""BatchNorm whose statistics are those of the batches of all ranks (``--sync-bn``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from torch import Tensor


class Normalized(NamedTuple):
    """A batch, normalized.

    Attributes:
        y: ``(x - mean) / sqrt(variance + eps)``, in the type of x.
        mean: of each channel over the batches of all ranks, float32.
        variance: the same, biased: over the count, as ``y`` needs it.
        num_values: how many values of each channel there are on all ranks; the unbiased variance of
            Caffe's running sums is ``variance * n / (n - 1)``.
    """

    y: Tensor
    mean: Tensor
    variance: Tensor
    num_values: int


def normalize(x: Tensor, eps: float) -> Normalized:
    """Normalizes each channel by its mean and variance over the batches of all ranks.

    Alone, it is the BatchNorm layer of Caffe. All ranks have batches of the same shape. Gradients
    flow through the statistics to the batches of all ranks, as with one large batch.

    Args:
        x: batch and channels are its first two axes.
        eps: added to the variance.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    y, mean, variance = _Normalize.apply(x, eps, world)
    return Normalized(y, mean, variance, world * x.numel() // x.shape[1])


class _Normalize(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, world: int) -> tuple[Tensor, Tensor, Tensor]:
        variance, mean = torch.var_mean(x.float(), _axes(x), correction=0)
        mean, variance = _over_ranks(mean, variance, world)
        scale = (variance + eps).rsqrt()
        y = ((x - _wide(mean, x)) * _wide(scale, x)).to(x.dtype)
        ctx.save_for_backward(y, scale)
        ctx.world = world
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        y, scale = ctx.saved_tensors
        axes = _axes(y)
        means = torch.stack([dy.float().mean(axes), (dy * y).float().mean(axes)])
        if ctx.world > 1:
            dist.all_reduce(means)
            means /= ctx.world
        dx = (dy - _wide(means[0], y) - y * _wide(means[1], y)) * _wide(scale, y)
        return dx.to(y.dtype), None, None


def _over_ranks(mean: Tensor, variance: Tensor, world: int) -> tuple[Tensor, Tensor]:
    """Mean and variance over all ranks from those of each: no difference of large numbers."""
    if world == 1:
        return mean, variance
    all_ranks = torch.zeros(world, 2, len(mean), device=mean.device)
    all_ranks[dist.get_rank()] = torch.stack([mean, variance])
    dist.all_reduce(all_ranks)  # gathers them; all_gather of gloo takes no CUDA tensors
    means, variances = all_ranks.unbind(1)
    whole = means.mean(0)
    return whole, variances.mean(0) + (means - whole).square().mean(0)


def _axes(x: Tensor) -> list[int]:
    """All axes but that of the channels."""
    return [axis for axis in range(x.dim()) if axis != 1]


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """One value for each channel, to be combined with x."""
    return values.view(-1, *[1] * (x.dim() - 2))
