"""Shape rules of layers that move a window over an image: convolution, pooling, LRN, Crop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from irv2caffe.shapes.layer_types.base import LayerSetup, LayerShapes, Shape, count, rule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def conv_size(size: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    """Output size of a convolution, rounded towards zero, as C does."""
    reach = dilation * (kernel - 1) + 1
    return int((size + 2 * pad - reach) / stride) + 1


def deconv_size(size: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    """Output size of a deconvolution."""
    return stride * (size - 1) + dilation * (kernel - 1) + 1 - 2 * pad


def pool_size(
    size: int, kernel: int, stride: int, pad: int, *, floor: bool = False, clip: bool = False
) -> int:
    """Output size of a pooling, rounded up.

    Args:
        size: of the input.
        kernel: size of the window.
        stride: between windows.
        pad: on both sides.
        floor: round down, as builds later than tag 1.0 can.
        clip: drop a last window that starts in the padding, as Caffe does if any axis is padded.
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
    """The shapes of base_conv_layer.cpp; several bottoms of one shape share the weights."""
    param = layer.param
    if len(layer.bottoms) != layer.num_tops:
        layer.fail(f"takes as many tops as bottoms, has {layer.num_tops} for {len(layer.bottoms)}")
    axis = layer.axis(param.axis)
    shape = layer.bottoms[0]
    layer.check_same_shapes()
    channels, num_output, group = shape[axis], param.num_output, param.group
    kernel, stride, pad, dilation = _window(layer, len(shape) - axis - 1)
    layer.check_positive("num_output", "group")
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
    """Refuses a kernel that is larger than the padded input."""
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
    holes = [layer.parse_int(value) for value in layer.settings("convolution_param", "hole")]
    dilation = _spread(layer, "dilation", param.dilation or holes, num_spatial, 1)
    for what, values in (("kernel sizes", kernel), ("strides", stride), ("dilations", dilation)):
        layer.check(all(value > 0 for value in values), f"{what} must be positive")
    return kernel, stride, pad, dilation


def _per_axis(
    layer: LayerSetup, name: str, values: Sequence[int], num_spatial: int, default: int | None
) -> Shape:
    """A size for each axis: given once, for each axis, or as ``_h`` and ``_w``."""
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
    if len(values) not in {1, num_spatial}:
        layer.fail(f"{name} must be given once or {num_spatial} times, not {len(values)} times")
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
    """pooling_layer.cpp; a second top holds the positions of the maxima."""
    param = layer.param
    layer.check_axes(4)
    is_max = param.pool == param.MAX
    layer.check(layer.num_tops == 1 or is_max, "only pool: MAX has a second top")
    size = layer.bottoms[0][2:]
    kernel, stride, pad = _pool_window(layer, param, size)
    if any(pad):
        layer.check(param.pool != param.STOCHASTIC, "padding is for MAX and AVE only")
        if not all(p < k for p, k in zip(pad, kernel, strict=True)):
            layer.fail(f"padding {max(pad)} must be smaller than the kernel {min(kernel)}")
    axes = list(zip(size, kernel, stride, pad, strict=True))
    down = [pool_size(*values, floor=True, clip=any(pad)) for values in axes]
    top = down
    # Forks round down with ceil_mode: false, which converters from PyTorch write, or NVCaffe
    # 0.17 with torch_pooling: true (src/caffe/proto/caffe.proto, PoolingParameter).
    down_in_forks = "false" in layer.settings("pooling_param", "ceil_mode") or (
        "true" in layer.settings("pooling_param", "torch_pooling")
    )
    if param.round_mode == param.CEIL and not down_in_forks:
        top = [pool_size(*values, clip=any(pad)) for values in axes]
    shape = (*layer.bottoms[0][:2], *top)
    return LayerShapes([shape] * layer.num_tops, rounded_up=top != down)


def _pool_window(layer: LayerSetup, param: Any, size: Shape) -> tuple[Shape, Shape, Shape]:
    """Kernel, stride and padding of a pooling, each given as one value or ``_h`` and ``_w``."""

    def has(name: str) -> tuple[bool, bool, bool]:
        """Whether the single value, any of the two, and both of the two are given."""
        two = [param.HasField(f"{name}_h"), param.HasField(f"{name}_w")]
        return param.HasField("kernel_size" if name == "kernel" else name), any(two), all(two)

    single, either, both = has("kernel")
    if param.global_pooling:
        layer.check(not (single or either), "global_pooling takes no kernel_size")
    else:
        layer.check(single != both, "takes kernel_size, or kernel_h and kernel_w, and not both")
    window = []
    for name in ("pad", "stride"):
        has_single, either, both = has(name)
        if not (not either or (both and not has_single)):
            layer.fail(f"takes {name}, or {name}_h and {name}_w, and not both")
        two = getattr(param, f"{name}_h"), getattr(param, f"{name}_w")
        window.append(two if either else (getattr(param, name),) * 2)
    pad, stride = window
    if param.global_pooling:
        if pad != (0, 0) or stride != (1, 1):
            layer.fail("global_pooling takes neither pad nor stride")
        return size, stride, pad
    kernel = (param.kernel_size,) * 2 if single else (param.kernel_h, param.kernel_w)
    layer.check(min(kernel) > 0, "kernel sizes must be positive")
    layer.check(min(stride) > 0, "strides must be positive")
    return kernel, stride, pad


@rule("SPP")
def _spp(layer: LayerSetup) -> LayerShapes:
    """spp_layer.cpp: pooled into 1, 2x2, 4x4 ... bins, which are joined into one row."""
    height = layer.param.pyramid_height
    layer.check_axes(4)
    layer.check_positive("pyramid_height")
    num, channels, *size = layer.bottoms[0]
    if height == 1:
        return LayerShapes([(num, channels, 1, 1)])
    total = sum(count([_bins(layer, side, 2**level) for side in size]) for level in range(height))
    return LayerShapes([(num, channels * total)])


def _bins(layer: LayerSetup, size: int, bins: int) -> int:
    """The number of windows along a side, which can be less than ``bins``."""
    kernel = -(-size // bins)
    pad = (kernel * bins - size + 1) // 2
    if pad >= kernel:
        layer.fail(
            f"{layer.bottom(0)} is too small for {bins} bins", "take a smaller pyramid_height"
        )
    return pool_size(size, kernel, kernel, pad, clip=True)


@rule("LRN")
def _lrn(layer: LayerSetup) -> LayerShapes:
    layer.check_axes(4)
    layer.check(layer.param.local_size % 2 == 1, "local_size must be odd")
    return LayerShapes([layer.bottoms[0]])


@rule("Crop", bottoms=2)
def _crop(layer: LayerSetup) -> LayerShapes:
    """crop_layer.cpp: the first bottom, cropped to the sizes of the second from an axis on."""
    param = layer.param
    shape, wanted = layer.bottoms
    start = layer.axis(param.axis)
    offset = list(param.offset)
    if len(offset) >= 2 and len(offset) != len(shape) - start:
        layer.fail(
            f"offset must be given once or {len(shape) - start} times, not {len(offset)} times"
        )
    if len(wanted) < len(shape):
        layer.fail(f"{layer.bottom(1)} has fewer axes than {layer.bottom(0)}")
    top = list(shape)
    for axis in range(start, len(shape)):
        moved = (offset[0] if len(offset) == 1 else offset[axis - start]) if offset else 0
        if shape[axis] - moved < wanted[axis]:
            layer.fail(
                f"{layer.bottom(0)} cannot be cut to {wanted[axis]} on axis {axis}"
                + (f" from {moved} on" if moved else "")
            )
        top[axis] = wanted[axis]
    return LayerShapes([tuple(top)])
