"""Normalization over a batch, channels or images, and scaling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from irv2caffe.engine.layer import Layer, layer_type
from irv2caffe.engine.layers.gradients import Normalize, apply
from irv2caffe.engine.parallel.sync_bn import normalize_all

if TYPE_CHECKING:
    from torch import Tensor

    from irv2caffe.engine.layer import Fillers
    from irv2caffe.shapes.infer import LayerInfo


@layer_type("BatchNorm")
def batch_norm(layer: Layer, x: Tensor) -> Tensor:
    """``(x - mean) / sqrt(variance + eps)`` for each channel (batch_norm_layer.cpp).

    With the statistics of the batch, or with the stored ones if ``use_global_stats``, which is by
    default so in TEST. The blobs hold sums of the batches' means and unbiased variances, and of
    ones, by which both are divided; a forward pass multiplies the sums by
    ``moving_average_fraction`` and adds the batch. While the third blob is 0, mean and variance
    count as 0. The option ``sync_bn`` takes the batches of all processes as one.
    """
    settings = layer.settings
    use_global = layer.phase == "TEST"
    if "use_global_stats" in settings.given:
        use_global = settings.use_global_stats
    mean_sum, variance_sum, factor = layer.blobs
    if use_global:
        inverse = torch.where(factor == 0, 0.0, 1 / factor)
        return functional.batch_norm(
            x, mean_sum * inverse, variance_sum * inverse, training=False, eps=settings.eps
        )
    # Only the first process tests, so that it must not wait for others then.
    is_shared = layer.options.sync_bn and layer.phase == "TRAIN"
    normalize = normalize_all if is_shared else normalize_batch
    top, mean, variance = normalize(x, settings.eps)
    update_statistics(layer, mean, variance)
    return top


def normalize_batch(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """A batch with mean 0 and variance 1 in each channel, its means and its unbiased variances."""
    if x.numel() == x.shape[1]:  # one value for each channel: variance 0, and no gradient
        mean = x.detach().flatten().to(torch.promote_types(x.dtype, torch.float32))
        return x - x, mean, torch.zeros_like(mean)
    mean = x.new_zeros(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
    variance = torch.zeros_like(mean)
    top = functional.batch_norm(x, mean, variance, training=True, momentum=1.0, eps=eps)
    return top, mean, variance


def update_statistics(layer: Layer, mean: Tensor, variance: Tensor) -> None:
    """Adds the statistics of a batch to the blobs of a BatchNorm layer, in place."""
    fraction = layer.settings.moving_average_fraction
    mean_sum, variance_sum, factor = layer.blobs
    with torch.no_grad():
        mean_sum.mul_(fraction).add_(mean)
        variance_sum.mul_(fraction).add_(variance)
        factor.mul_(fraction).add_(1)


def _fillers_of_scale(info: LayerInfo) -> Fillers:
    """With two bottoms the bias is the only weight."""
    return (("filler", 1.0), ("bias_filler", 0.0))[len(info.bottoms) - 1 :]


@layer_type("Scale", fillers=_fillers_of_scale)
def scale(layer: Layer, x: Tensor, *factors: Tensor) -> Tensor:
    """``x`` times a weight or the second bottom, from ``axis`` on, plus a bias.

    Source: scale_layer.cpp.
    """
    *weight, bias = layer.blobs if layer.settings.bias_term else (*layer.blobs, None)
    top = x * _spread(layer, x, factors[0] if factors else weight[0])
    return top if bias is None else top.add_(_spread(layer, x, bias))


@layer_type("Bias", fillers=(("filler", 0.0),))
def bias(layer: Layer, x: Tensor, *summands: Tensor) -> Tensor:
    """``x`` plus a weight or the second bottom, from ``axis`` on (bias_layer.cpp)."""
    return x + _spread(layer, x, summands[0] if summands else layer.blobs[0])


def _spread(layer: Layer, x: Tensor, operand: Tensor) -> Tensor:
    """A factor or summand with the axes of ``x``, and its type under autocast."""
    before = layer.settings.axis % x.dim() if operand.dim() else 0
    after = x.dim() - before - operand.dim()
    return operand.reshape((1,) * before + operand.shape + (1,) * after).to(x.dtype)


def _in_place(info: LayerInfo) -> str:
    return "in place, where Caffe's gradient is wrong" if info.in_place else ""


@layer_type("LRN", unsupported=_in_place)
def lrn(layer: Layer, x: Tensor) -> Tensor:
    """``x / (k + alpha * mean of squares) ** beta`` (lrn_layer.cpp).

    The mean is over ``local_size`` channels, with zeros beyond the first and last; or, with
    ``WITHIN_CHANNEL``, over a square of that side in the image, where ``k`` is 1.
    """
    settings = layer.settings
    side = settings.local_size
    squares = x.square()
    if settings.norm_region == "WITHIN_CHANNEL":
        mean = functional.avg_pool2d(squares, side, 1, side // 2)
        return x * (1 + settings.alpha * mean) ** -settings.beta
    window = _channel_window(layer, x).to(squares.dtype)
    mean = torch.matmul(window, squares.flatten(2)).reshape(x.shape)
    return x * (settings.k + settings.alpha * mean) ** -settings.beta


def _channel_window(layer: Layer, x: Tensor) -> Tensor:
    """A matrix whose product takes means over neighbouring channels, faster than a pooling."""
    if "window" not in layer.constants:
        side = layer.settings.local_size
        at = torch.arange(x.shape[1], device=x.device)
        layer.constants["window"] = ((at[:, None] - at).abs() <= side // 2).float() / side
    return layer.constants["window"]


@layer_type("MVN", unsupported=_in_place)
def mvn(layer: Layer, x: Tensor) -> Tensor:
    """Each plane, or image with ``across_channels``, less its mean and over its deviation.

    Source: mvn_layer.cpp; the top has four axes.
    """
    settings = layer.settings
    images = x.reshape(*layer.top_shapes(x)[0]).float()
    rows = images.flatten(1) if settings.across_channels else images.flatten(0, 1).flatten(1)
    if settings.normalize_variance:
        top = apply(Normalize, rows, settings.eps)
    else:
        top = rows - rows.mean(1, keepdim=True)
    return top.reshape(images.shape)
