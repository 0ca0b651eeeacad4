"""BatchNorm whose statistics are those of the batches of all ranks (``--sync-bn``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.autograd import Function
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from torch import Tensor


def normalize_all(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalizes each channel by its mean and variance over the batches of all ranks.

    All ranks have batches of the same shape. Gradients flow through the statistics to the batches
    of all ranks, as with one large batch.

    Args:
        x: batch and channels are its first two axes.
        eps: added to the variance.

    Returns:
        ``(x - mean) / sqrt(variance + eps)`` in the type of x; and in float32 the means and the
        unbiased variances, of all values of all ranks, for Caffe's running sums.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    y, mean, variance = _Normalize.apply(x, eps, world)
    count = world * x.numel() // x.shape[1]
    return y, mean, variance * (count / max(1, count - 1))


class _Normalize(Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, world: int) -> tuple[Tensor, Tensor, Tensor]:
        variance, mean = torch.var_mean(x.float(), _axes(x), correction=0)
        mean, variance = _over_ranks(mean, variance, world)
        scale = (variance + eps).rsqrt()
        # x, as torch's batch_norm: the layers that follow may overwrite y
        ctx.save_for_backward(x, mean, scale)
        ctx.world = world
        ctx.mark_non_differentiable(mean, variance)
        return _normalized(x, mean, scale).to(x.dtype), mean, variance

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        x, mean, scale = ctx.saved_tensors
        y = _normalized(x, mean, scale)
        means = torch.stack([dy.float().mean(_axes(x)), (dy * y).mean(_axes(x))])
        if ctx.world > 1:
            dist.all_reduce(means)
            means /= ctx.world
        dx = (dy - _wide(means[0], x) - y * _wide(means[1], x)) * _wide(scale, x)
        return dx.to(x.dtype), None, None


def _normalized(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return (x - _wide(mean, x)) * _wide(scale, x)


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
