"""Shape rules of well-known layer types of Caffe's forks, which Caffe 1.0 does not have.

Each rule follows the LayerSetUp and Reshape of its fork, in
src/caffe/layers: weiliu89/caffe (SSD) for Normalize and Permute, alexgkendall/caffe-segnet and
hszhao/PSPNet for BN, Upsample and ImageSegData, DeepLab's second version for Interp,
hujie-frank/SENet, farmingyard/ShuffleNet, and lyxok1/Tiny-DSOD for ConvolutionDepthwise. Layer
types of detectors are in ``detection``. Fields that the schema lacks are read from the prototxt.
"""

from __future__ import annotations

from irv2caffe.shapes.layer_types.base import (
    UNKNOWN,
    LayerSetup,
    LayerShapes,
    Shape,
    ShapeRule,
    register,
)
from irv2caffe.shapes.layer_types.spatial import conv_size, convolve

FORK_RULES: dict[str, ShapeRule] = {}
fork = register(FORK_RULES)


def unknown(layer: LayerSetup) -> LayerShapes:
    """The rule of an unknown layer type: unknown tops, unless the user gave their shapes."""
    if len(layer.records) == layer.num_tops > 0:
        tops = [shape if shape is UNKNOWN else tuple(shape) for shape in layer.records]
        return LayerShapes(tops, partial=any(shape is UNKNOWN for shape in tops))
    is_loss = layer.bottoms and layer.proto.type.endswith("Loss")
    return LayerShapes([() if is_loss else UNKNOWN] * layer.num_tops, partial=True)


UNKNOWN_RULE = ShapeRule(unknown, (0, None), (0, None), ignores_bottoms=True)


def crop_of(layer: LayerSetup) -> tuple[int, int]:
    """Height and width of the crop, 0 for none; forks have crop_h and crop_w."""
    crop = layer.proto.transform_param.crop_size
    height, width = (
        crop or layer.parse_int(layer.setting("transform_param", name, "0"))
        for name in ("crop_h", "crop_w")
    )
    return height, width


@fork("ReLU6")
def _relu6(layer: LayerSetup) -> LayerShapes:
    return LayerShapes([layer.bottoms[0]])


@fork("ShuffleChannel")
def _shuffle_channel(layer: LayerSetup) -> LayerShapes:
    """shuffle_channel_layer.cpp, which checks the groups in its first pass."""
    group = layer.parse_int(layer.setting("shuffle_channel_param", "group", "1"))
    layer.check_has_channels()
    channels = layer.bottoms[0][1]
    if group <= 0 or channels % group != 0:
        layer.fail(f"{channels} channels cannot be split into {group} groups")
    return LayerShapes([layer.bottoms[0]])


@fork("Normalize")
def _normalize(layer: LayerSetup) -> LayerShapes:
    """normalize_layer.cpp: one learned scale, or one for each channel."""
    shared = layer.setting("norm_param", "channel_shared", "true") == "true"
    layer.check_has_channels()
    return LayerShapes([layer.bottoms[0]], [() if shared else (layer.bottoms[0][1],)])


@fork("Permute")
def _permute(layer: LayerSetup) -> LayerShapes:
    shape = layer.bottoms[0]
    order = [layer.parse_int(value) for value in layer.settings("permute_param", "order")]
    if not (len(set(order)) == len(order) and all(0 <= axis < len(shape) for axis in order)):
        layer.fail(f"order {order} does not fit the axes of {layer.bottom(0)}")
    order += [axis for axis in range(len(shape)) if axis not in order]
    return LayerShapes([tuple(shape[axis] for axis in order)])


@fork("Axpy", bottoms=3)
def _axpy(layer: LayerSetup) -> LayerShapes:
    """axpy_layer.cpp: the first bottom, a factor per channel, times the second plus the third."""
    if layer.bottoms[1] != layer.bottoms[2]:
        layer.fail(f"{layer.bottom(1)} and {layer.bottom(2)} must have the same shape")
    factors, summand = layer.bottoms[:2]
    if len(summand) < 2 or factors[:2] != summand[:2] or set(factors[2:4]) - {1}:
        layer.fail(f"{layer.bottom(0)} must have one value for each channel of {layer.bottom(1)}")
    return LayerShapes([summand])


@fork("BN", "bn", tops=(1, 3))
def _bn(layer: LayerSetup) -> LayerShapes:
    """bn_layer.cpp: learns scale and shift; PSPNet's has two more blobs with statistics.

    SegNet's has optional tops for the mean and variance of the batch.
    """
    layer.check_has_channels()
    each = (1, layer.bottoms[0][1], 1, 1)
    return LayerShapes([layer.bottoms[0], each, each][: layer.num_tops], [each] * 2)


@fork("Upsample", "UPSAMPLE", bottoms=(1, 2))
def _upsample(layer: LayerSetup) -> LayerShapes:
    """upsample_layer.cpp: both sizes, a factor for each side, or one factor.

    SegNet's has a mask as second bottom; that of eric612/MobileNet-YOLO has none.
    """
    layer.check_axes(4)
    for index in range(1, len(layer.bottoms)):
        if layer.bottoms[index] != layer.bottoms[0]:
            layer.fail(
                f"{layer.bottom(0)} and its mask, {layer.bottom(index)}, must have the same shape"
            )

    def number(name: str, default: str) -> int:
        return layer.parse_int(layer.setting("upsample_param", name, default))

    sizes = [number("upsample_h", "0"), number("upsample_w", "0")]
    if not all(sizes):
        scale = layer.setting("upsample_param", "scale", "2")
        sizes = [
            layer.bottoms[0][axis] * number(f"scale_{side}", scale)
            - (layer.setting("upsample_param", f"pad_out_{side}", "false") == "true")
            for axis, side in ((2, "h"), (3, "w"))
        ]
    return LayerShapes([(*layer.bottoms[0][:2], *sizes)])


@fork("Interp", "INTERP", bottoms=(1, 2))
def _interp(layer: LayerSetup) -> LayerShapes:
    """interp_layer.cpp: in this order, one factor, the sizes, both factors, the second bottom."""
    layer.check_axes(4)

    def number(name: str) -> int:
        return layer.parse_int(layer.setting("interp_param", name, "0"))

    shrink, zoom, *pads = map(number, ("shrink_factor", "zoom_factor", "pad_beg", "pad_end"))
    sizes = [number("height"), number("width")]
    layer.check(shrink >= 0 and zoom >= 0, "factors must be positive")
    layer.check(max(pads) <= 0, "pad_beg and pad_end crop: they must not be positive")
    inner = [size + sum(pads) for size in layer.bottoms[0][2:]]
    layer.check(min(inner) > 0, f"pad_beg and pad_end leave nothing of {layer.bottom(0)}")
    if bool(shrink) != bool(zoom) or (shrink and not all(sizes)):
        sizes = [(size - 1) // (shrink or 1) + 1 for size in inner]
        sizes = [size + (size - 1) * ((zoom or 1) - 1) for size in sizes]
    elif not all(sizes) and len(layer.bottoms) == 2:
        layer.check_axes(4, 1)
        sizes = [*layer.bottoms[1][2:]]
    layer.check(all(sizes), "interp_param needs height and width, or a factor")
    return LayerShapes([(*layer.bottoms[0][:2], *sizes)])


@fork("DepthwiseConvolution", "ConvolutionDepthwise")
def _depthwise_convolution(layer: LayerSetup) -> LayerShapes:
    """A convolution; ConvolutionDepthwise ignores num_output and group: a filter per channel."""
    layer.check_axes(4)
    if layer.proto.type == "ConvolutionDepthwise":  # conv_dw_layer.cpp
        layer.param.group = layer.param.num_output = layer.bottoms[0][1]
    return convolve(layer, conv_size)


@fork("ImageSegData", bottoms=0, tops=(1, 3))
def _image_seg_data(layer: LayerSetup) -> LayerShapes:
    """image_seg_data_layer.cpp: images, label maps of their size, and their original sizes."""
    param = layer.proto.image_data_param
    batch = layer.batch_size or param.batch_size
    size: Shape = crop_of(layer)
    if not all(size):
        size = (param.new_height, param.new_width)
    if layer.records:
        size = layer.records[0][-2:]
    if not all(size):
        return unknown(layer)
    tops = [(batch, 3 if param.is_color else 1, *size), (batch, 1, *size), (batch, 1, 1, 2)]
    return LayerShapes(tops[: layer.num_tops])
