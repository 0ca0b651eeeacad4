"""Layers that move a window over an image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from irv2caffe.shapes.layer_types.base import LayerSetup, LayerShapes, Shape, count, rule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def conv_size(size: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    """Output size of a convolution; rounds down (as C does: towards zero)."""
    reach = dilation * (kernel - 1) + 1
    return int((size + 2 * pad - reach) / stride) + 1


def deconv_size(size: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    """Output size of a deconvolution."""
    return stride * (size - 1) + dilation * (kernel - 1) + 1 - 2 * pad


def pool_size(
    size: int, kernel: int, stride: int, pad: int, *, floor: bool = False, clip: bool = False
) -> int:
    """Output size of a pooling; rounds up.

    Args:
        size: of the input.
        kernel: of the window.
        stride: between windows.
        pad: on both sides.
        floor: rounds down, which only builds later than tag 1.0 can.
        clip: drops a last window that starts in the padding (done when either axis is padded).
    """
    steps = (size + 2 * pad - kernel) / stride
    result = (math.floor(steps) if floor else math.ceil(steps)) + 1
    if clip and (result - 1) * stride >= size + pad:
        result -= 1
    return result


@rule("Convolution", bottoms=(1, None), tops=(1, None))
def _convolution(layer: LayerSetup) -> LayerShapes:
    return convolve(layer, conv_size)


@rule("Deconvolution", bottoms=(1, None), tops=(1, None))
def _deconvolution(layer: LayerSetup) -> LayerShapes:
    return convolve(layer, deconv_size)


def convolve(layer: LayerSetup, out_size: Callable[..., int]) -> LayerShapes:
    """base_conv_layer.cpp; several bottoms of one shape go through the same weights."""
    param = layer.param
    layer.check(
        len(layer.bottoms) == layer.num_tops,
        f"takes as many tops as bottoms, has {layer.num_tops} for {len(layer.bottoms)}",
    )
    axis = layer.axis(param.axis)
    shape = layer.bottoms[0]
    for index in range(1, len(layer.bottoms)):
        layer.check(
            layer.bottoms[index] == shape,
            f"{layer.bottom(0)} and {layer.bottom(index)} differ; all must have one shape",
        )
    channels, num_output, group = shape[axis], param.num_output, param.group
    kernel, stride, pad, dilation = _window(layer, len(shape) - axis - 1)
    layer.check(num_output > 0, "num_output must be positive")
    layer.check(group > 0, "group must be positive")
    layer.check(channels % group == 0, f"{channels} channels cannot be split into {group} groups")
    layer.check(num_output % group == 0, f"num_output {num_output} is no multiple of group {group}")
    forward = out_size is conv_size
    if forward:
        _check_kernel(layer, shape[axis + 1 :], kernel, pad, dilation)
    sizes = tuple(map(out_size, shape[axis + 1 :], kernel, stride, pad, dilation))
    top = (*shape[:axis], num_output, *sizes)
    weight = (num_output, channels // group) if forward else (channels, num_output // group)
    params: list[Shape] = [(*weight, *kernel)]
    if param.bias_term:
        params.append((num_output,))
    positions = count(sizes if forward else shape[axis + 1 :]) * count(shape[:axis])
    macs = count(params[0]) * positions * len(layer.bottoms)
    return LayerShapes([top] * layer.num_tops, params, macs)


def _check_kernel(
    layer: LayerSetup, sizes: Sequence[int], kernel: Shape, pad: Shape, dilation: Shape
) -> None:
    """A kernel that reaches over the padded input has no output."""
    for size, k, p, d in zip(sizes, kernel, pad, dilation, strict=True):
        reach = d * (k - 1) + 1
        if reach > size + 2 * p:
            layer.fail(
                f"kernel {k} (dilation {d}) is larger than {layer.bottom(0)} with padding {p}",
                "the input of the net is too small for it",
            )


def _window(layer: LayerSetup, num_spatial: int) -> tuple[Shape, Shape, Shape, Shape]:
    """Kernel, stride, padding and dilation for each spatial axis."""
    param = layer.param
    kernel = _per_axis(layer, "kernel", param.kernel_size, num_spatial, None)
    stride = _per_axis(layer, "stride", param.stride, num_spatial, 1)
    pad = _per_axis(layer, "pad", param.pad, num_spatial, 0)
    holes = [layer.whole(value) for value in layer.settings("convolution_param", "hole")]
    dilation = _spread(layer, "dilation", param.dilation or holes, num_spatial, 1)
    layer.check(all(size > 0 for size in kernel), "kernel sizes must be positive")
    layer.check(all(size > 0 for size in stride), "strides must be positive")
    layer.check(all(size > 0 for size in dilation), "dilations must be positive")
    return kernel, stride, pad, dilation


def _per_axis(
    layer: LayerSetup, name: str, values: Sequence[int], num_spatial: int, default: int | None
) -> Shape:
    """One value, one per axis, or the ``_h`` and ``_w`` forms, but not both."""
    param = layer.param
    if not (param.HasField(f"{name}_h") or param.HasField(f"{name}_w")):
        field = "kernel_size" if name == "kernel" else name
        return _spread(layer, field, values, num_spatial, default)
    layer.check(num_spatial == 2, f"{name}_h and {name}_w are for images with two spatial axes")
    layer.check(not values, f"takes {name} or {name}_h and {name}_w, not both")
    return getattr(param, f"{name}_h"), getattr(param, f"{name}_w")


def _spread(
    layer: LayerSetup, name: str, values: Sequence[int], num_spatial: int, default: int | None
) -> Shape:
    if not values and default is not None:
        return (default,) * num_spatial
    layer.check(
        len(values) in {1, num_spatial},
        f"{name} must be given once or {num_spatial} times, not {len(values)} times",
    )
    return tuple(values) if len(values) == num_spatial else (values[0],) * num_spatial


@rule("Im2col")
def _im2col(layer: LayerSetup) -> LayerShapes:
    axis = layer.axis(layer.param.axis)
    shape = layer.bottoms[0]
    layer.check(axis + 1 < len(shape), f"{layer.bottom(0)} has no axes behind axis {axis}")
    kernel, stride, pad, dilation = _window(layer, len(shape) - axis - 1)
    _check_kernel(layer, shape[axis + 1 :], kernel, pad, dilation)
    sizes = map(conv_size, shape[axis + 1 :], kernel, stride, pad, dilation)
    return LayerShapes([(*shape[:axis], shape[axis] * count(kernel), *sizes)])


@rule("Pooling", tops=(1, 2))
def _pooling(layer: LayerSetup) -> LayerShapes:
    """pooling_layer.cpp; the second top of a maximum holds where it came from."""
    param = layer.param
    layer.num_axes(4)
    is_max = param.pool == param.MAX
    layer.check(layer.num_tops == 1 or is_max, "only pool: MAX has a second top")
    size = layer.bottoms[0][2:]
    kernel, stride, pad = _pool_window(layer, param, size)
    if any(pad):
        layer.check(param.pool != param.STOCHASTIC, "padding is for MAX and AVE only")
        layer.check(
            all(p < k for p, k in zip(pad, kernel, strict=True)),
            f"padding {max(pad)} must be smaller than the kernel {min(kernel)}",
        )
    axes = list(zip(size, kernel, stride, pad, strict=True))
    down = [pool_size(*values, floor=True, clip=any(pad)) for values in axes]
    top = down
    # Converters from PyTorch write ceil_mode, for a Caffe that knows it; NVCaffe 0.17 has
    # torch_pooling, which rounds down (src/caffe/proto/caffe.proto, PoolingParameter).
    down_in_forks = "false" in layer.settings("pooling_param", "ceil_mode") or (
        "true" in layer.settings("pooling_param", "torch_pooling")
    )
    if param.round_mode == param.CEIL and not down_in_forks:
        top = [pool_size(*values, clip=any(pad)) for values in axes]
    shape = (*layer.bottoms[0][:2], *top)
    return LayerShapes([shape] * layer.num_tops, rounded_up=top != down)


def _pool_window(layer: LayerSetup, param: Any, size: Shape) -> tuple[Shape, Shape, Shape]:
    """Kernel, stride and padding of a pooling, which has its own way of giving them."""
    both = {
        name: param.HasField(f"{name}_h") and param.HasField(f"{name}_w")
        for name in ("kernel", "stride", "pad")
    }
    either = {
        name: param.HasField(f"{name}_h") or param.HasField(f"{name}_w")
        for name in ("kernel", "stride", "pad")
    }
    single = {
        "kernel": param.HasField("kernel_size"),
        "stride": param.HasField("stride"),
        "pad": param.HasField("pad"),
    }
    if param.global_pooling:
        layer.check(
            not (single["kernel"] or either["kernel"]), "global_pooling takes no kernel_size"
        )
    else:
        layer.check(
            single["kernel"] != both["kernel"],
            "takes kernel_size, or kernel_h and kernel_w, and not both",
        )
    for name in ("pad", "stride"):
        layer.check(
            not either[name] or (both[name] and not single[name]),
            f"takes {name}, or {name}_h and {name}_w, and not both",
        )
    stride = (param.stride_h, param.stride_w) if either["stride"] else (param.stride,) * 2
    pad = (param.pad_h, param.pad_w) if either["pad"] else (param.pad,) * 2
    if param.global_pooling:
        layer.check(
            pad == (0, 0) and stride == (1, 1), "global_pooling takes neither pad nor stride"
        )
        return size, stride, pad
    kernel = (param.kernel_size,) * 2 if single["kernel"] else (param.kernel_h, param.kernel_w)
    layer.check(min(kernel) > 0, "kernel sizes must be positive")
    layer.check(min(stride) > 0, "strides must be positive")
    return kernel, stride, pad


@rule("SPP")
def _spatial_pyramid(layer: LayerSetup) -> LayerShapes:
    """spp_layer.cpp: pooled into 1, 2x2, 4x4 ... bins, and all of that in one row."""
    height = layer.param.pyramid_height
    layer.num_axes(4)
    layer.check(height > 0, "pyramid_height must be positive")
    num, channels, *size = layer.bottoms[0]
    if height == 1:
        return LayerShapes([(num, channels, 1, 1)])
    total = sum(count([_bins(layer, side, 2**level) for side in size]) for level in range(height))
    return LayerShapes([(num, channels * total)])


def _bins(layer: LayerSetup, size: int, bins: int) -> int:
    """How many windows a side really gets."""
    kernel = -(-size // bins)
    pad = (kernel * bins - size + 1) // 2
    layer.check(
        pad < kernel,
        f"{layer.bottom(0)} is too small for {bins} bins",
        "take a smaller pyramid_height",
    )
    return pool_size(size, kernel, kernel, pad, clip=True)


@rule("LRN")
def _lrn(layer: LayerSetup) -> LayerShapes:
    layer.num_axes(4)
    layer.check(layer.param.local_size % 2 == 1, "local_size must be odd")
    return LayerShapes([layer.bottoms[0]])


@rule("Crop", bottoms=2)
def _crop(layer: LayerSetup) -> LayerShapes:
    """crop_layer.cpp: the first bottom cut to the size of the second from an axis on."""
    param = layer.param
    shape, wanted = layer.bottoms
    start = layer.axis(param.axis)
    offset = list(param.offset)
    layer.check(
        len(offset) < 2 or len(offset) == len(shape) - start,
        f"offset must be given once or {len(shape) - start} times, not {len(offset)} times",
    )
    layer.check(
        len(wanted) >= len(shape), f"{layer.bottom(1)} has fewer axes than {layer.bottom(0)}"
    )
    top = list(shape)
    for axis in range(start, len(shape)):
        moved = (offset[0] if len(offset) == 1 else offset[axis - start]) if offset else 0
        layer.check(
            shape[axis] - moved >= wanted[axis],
            f"{layer.bottom(0)} cannot be cut to {wanted[axis]} on axis {axis}"
            + (f" from {moved} on" if moved else ""),
        )
        top[axis] = wanted[axis]
    return LayerShapes([tuple(top)])
