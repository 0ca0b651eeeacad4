"""What well-known layer types of Caffe's forks make of shapes, where that is simple and certain.

Caffe 1.0 has none of them. Each rule follows the LayerSetUp and Reshape of its fork, in
src/caffe/layers: weiliu89/caffe (SSD) for Normalize and Permute, alexgkendall/caffe-segnet and
hszhao/PSPNet for BN, Upsample and ImageSegData, DeepLab's second version for Interp,
hujie-frank/SENet, farmingyard/ShuffleNet, and lyxok1/Tiny-DSOD for ConvolutionDepthwise; those of
detectors are next door. Settings are read from the text, since the schema does not have them.
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
    """A type of which nothing is known, but perhaps what the user says of its tops."""
    if len(layer.records) == layer.num_tops > 0:
        tops = [shape if shape is UNKNOWN else tuple(shape) for shape in layer.records]
        return LayerShapes(tops, partial=any(shape is UNKNOWN for shape in tops))
    is_loss = layer.bottoms and layer.proto.type.endswith("Loss")
    return LayerShapes([() if is_loss else UNKNOWN] * layer.num_tops, partial=True)


UNKNOWN_RULE = ShapeRule(unknown, (0, None), (0, None), ignores_bottoms=True)


def crop_of(layer: LayerSetup) -> tuple[int, int]:
    """Height and width that images are cropped to, 0 for none; forks can tell them apart."""
    crop = layer.proto.transform_param.crop_size
    height, width = (
        crop or layer.whole(layer.setting("transform_param", name, "0"))
        for name in ("crop_h", "crop_w")
    )
    return height, width


@fork("ReLU6")
def _same(layer: LayerSetup) -> LayerShapes:
    return LayerShapes([layer.bottoms[0]])


@fork("ShuffleChannel")
def _shuffle(layer: LayerSetup) -> LayerShapes:
    """shuffle_channel_layer.cpp, which looks at the groups in its first pass."""
    group = layer.whole(layer.setting("shuffle_channel_param", "group", "1"))
    layer.check(len(layer.bottoms[0]) >= 2, f"{layer.bottom(0)} must have channels")
    channels = layer.bottoms[0][1]
    layer.check(
        group > 0 and channels % group == 0,
        f"{channels} channels cannot be split into {group} groups",
    )
    return LayerShapes([layer.bottoms[0]])


@fork("Normalize")
def _normalize(layer: LayerSetup) -> LayerShapes:
    """normalize_layer.cpp: one learned scale, or one for each channel."""
    shared = layer.setting("norm_param", "channel_shared", "true") == "true"
    layer.check(len(layer.bottoms[0]) >= 2, f"{layer.bottom(0)} must have channels")
    return LayerShapes([layer.bottoms[0]], [() if shared else (layer.bottoms[0][1],)])


@fork("Permute")
def _permute(layer: LayerSetup) -> LayerShapes:
    shape = layer.bottoms[0]
    order = [layer.whole(value) for value in layer.settings("permute_param", "order")]
    layer.check(
        len(set(order)) == len(order) and all(0 <= axis < len(shape) for axis in order),
        f"order {order} is none of the axes of {layer.bottom(0)}",
    )
    order += [axis for axis in range(len(shape)) if axis not in order]
    return LayerShapes([tuple(shape[axis] for axis in order)])


@fork("Axpy", bottoms=3)
def _scaled_sum(layer: LayerSetup) -> LayerShapes:
    """axpy_layer.cpp: a factor for each channel times the second bottom plus the third."""
    layer.check(
        layer.bottoms[1] == layer.bottoms[2],
        f"{layer.bottom(1)} and {layer.bottom(2)} must have the same shape",
    )
    factors, summand = layer.bottoms[:2]
    layer.check(
        len(summand) >= 2 and factors[:2] == summand[:2] and set(factors[2:4]) <= {1},
        f"{layer.bottom(0)} must have one value for each channel of {layer.bottom(1)}",
    )
    return LayerShapes([summand])


@fork("BN", "bn", tops=(1, 3))
def _batch_normalization(layer: LayerSetup) -> LayerShapes:
    """bn_layer.cpp: scale and shift are learned; PSPNet's has two more blobs, of statistics.

    SegNet's gives the batch's mean and variance, where asked for.
    """
    layer.check(len(layer.bottoms[0]) >= 2, f"{layer.bottom(0)} must have channels")
    each = (1, layer.bottoms[0][1], 1, 1)
    return LayerShapes([layer.bottoms[0], each, each][: layer.num_tops], [each] * 2)


@fork("Upsample", "UPSAMPLE", bottoms=(1, 2))
def _upsample(layer: LayerSetup) -> LayerShapes:
    """upsample_layer.cpp: both sizes, or a factor for each side or for both.

    SegNet's has a mask, of where a pool's maxima were; eric612/MobileNet-YOLO's has none.
    """
    layer.num_axes(4)
    for index in range(1, len(layer.bottoms)):
        layer.check(
            layer.bottoms[index] == layer.bottoms[0],
            f"{layer.bottom(0)} and its mask, {layer.bottom(index)}, must have the same shape",
        )

    def number(name: str, default: str) -> int:
        return layer.whole(layer.setting("upsample_param", name, default))

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
def _interpolate(layer: LayerSetup) -> LayerShapes:
    """interp_layer.cpp: one factor, else the sizes, else both factors, else the second bottom."""
    layer.num_axes(4)

    def number(name: str) -> int:
        return layer.whole(layer.setting("interp_param", name, "0"))

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
        layer.num_axes(4, 1)
        sizes = [*layer.bottoms[1][2:]]
    layer.check(all(sizes), "interp_param wants height and width, or a factor")
    return LayerShapes([(*layer.bottoms[0][:2], *sizes)])


@fork("DepthwiseConvolution", "ConvolutionDepthwise")
def _depthwise(layer: LayerSetup) -> LayerShapes:
    """A convolution; ConvolutionDepthwise has a filter for each channel, whatever is said."""
    layer.num_axes(4)
    if layer.proto.type == "ConvolutionDepthwise":  # conv_dw_layer.cpp
        layer.param.group = layer.param.num_output = layer.bottoms[0][1]
    return convolve(layer, conv_size)


@fork("ImageSegData", bottoms=0, tops=(1, 3))
def _segmentation_data(layer: LayerSetup) -> LayerShapes:
    """image_seg_data_layer.cpp: images, their label maps of the same size, and their sizes."""
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
