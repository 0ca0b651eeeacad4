"""Convolution and deconvolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn import functional

from irv2caffe.engine.layer import Layer, Tops, layer_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from irv2caffe.engine.settings import Settings
    from irv2caffe.shapes.infer import LayerInfo

_FILLERS = (("weight_filler", 0.0), ("bias_filler", 0.0))
_CONVOLUTIONS: tuple[Callable[..., Tensor], ...] = (
    functional.conv1d,
    functional.conv2d,
    functional.conv3d,
)
_DECONVOLUTIONS: tuple[Callable[..., Tensor], ...] = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)


def _too_many_axes(info: LayerInfo) -> str:
    axes = len(info.params[0]) - 2
    return f"{axes} spatial axes, at most 3 are possible" if axes > 3 else ""


@layer_type("Convolution", fillers=_FILLERS, unsupported=_too_many_axes)
def convolution(layer: Layer, *bottoms: Tensor) -> Tops:
    """A correlation over the axes behind ``axis``, in groups (base_conv_layer.cpp, conv_layer.cpp).

    Several bottoms share the weights.
    """
    return tuple(_convolve(layer, x, _CONVOLUTIONS) for x in bottoms)


@layer_type("Deconvolution", fillers=_FILLERS, unsupported=_too_many_axes)
def deconvolution(layer: Layer, *bottoms: Tensor) -> Tops:
    """The gradient of a convolution as a forward pass (deconv_layer.cpp)."""
    return tuple(_convolve(layer, x, _DECONVOLUTIONS) for x in bottoms)


def _convolve(layer: Layer, x: Tensor, functions: tuple[Callable[..., Tensor], ...]) -> Tensor:
    settings = layer.settings
    weight, *rest = layer.blobs
    bias = rest[0] if rest else None
    axes = weight.dim() - 2
    arguments: dict[str, Any] = {
        "stride": per_axis(settings, "stride", axes, 1),
        "padding": per_axis(settings, "pad", axes, 0),
        "dilation": per_axis(settings, "dilation", axes, 1),
        "groups": settings.group,
    }
    if axes == 2 and x.dim() == 4:
        return functions[1](x, weight, bias, **arguments)
    batch = x.shape[: x.dim() - axes - 1]
    images = x.reshape(-1, *x.shape[len(batch) :])
    if axes == 0:  # the same as an axis of size 1
        top = functions[0](images[..., None], weight[..., None], bias, groups=settings.group)[
            ..., 0
        ]
    else:
        top = functions[axes - 1](images, weight, bias, **arguments)
    return top.reshape(*batch, *top.shape[1:])


def per_axis(settings: Settings, name: str, axes: int, default: int) -> tuple[int, ...]:
    """A setting for each spatial axis: given once, for each axis, or as ``_h`` and ``_w``."""
    if f"{name}_h" in settings.given or f"{name}_w" in settings.given:
        return getattr(settings, f"{name}_h"), getattr(settings, f"{name}_w")
    values: tuple[int, ...] = getattr(settings, name) or (default,)
    return values if len(values) == axes else values * axes
