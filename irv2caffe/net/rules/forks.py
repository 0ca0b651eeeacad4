"""What well-known layer types of Caffe's forks make of shapes, where that is simple and certain.

Caffe 1.0 has none of them. Each rule follows the LayerSetUp and Reshape of its fork: SSD
(weiliu89/caffe), Faster R-CNN and its Python layers, R-FCN, SegNet, PSPNet, SENet, MobileNet and
ShuffleNet. Settings are read from the text, since the schema does not have them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from irv2caffe.net.rules.base import UNKNOWN, Layer, Made, Rule, Shape, count, register, rule_of
from irv2caffe.net.rules.spatial import convolve, convolved
from irv2caffe.net.rules.told import told_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FORK_RULES: dict[str, Rule] = {}
fork = register(FORK_RULES)


def unknown(layer: Layer) -> Made:
    """A type of which nothing is known, but perhaps what the user says of its tops."""
    if len(layer.records) == layer.num_tops > 0:
        tops = [shape if shape is UNKNOWN else tuple(shape) for shape in layer.records]
        return Made(tops, partial=any(shape is UNKNOWN for shape in tops))
    is_loss = layer.bottoms and layer.proto.type.endswith("Loss")
    return Made([() if is_loss else UNKNOWN] * layer.num_tops, partial=True)


UNKNOWN_RULE = Rule(unknown, (0, None), (0, None), blind=True)


@fork("ReLU6", "ShuffleChannel")
def _same(layer: Layer) -> Made:
    return Made([layer.bottoms[0]])


@fork("Normalize")
def _normalize(layer: Layer) -> Made:
    """normalize_layer.cpp: one learned scale, or one for each channel."""
    shared = layer.setting("norm_param", "channel_shared", "true") == "true"
    layer.check(len(layer.bottoms[0]) >= 2, f"{layer.bottom(0)} must have channels")
    return Made([layer.bottoms[0]], [() if shared else (layer.bottoms[0][1],)])


@fork("Permute")
def _permute(layer: Layer) -> Made:
    shape = layer.bottoms[0]
    order = [layer.whole(value) for value in layer.settings("permute_param", "order")]
    layer.check(
        len(set(order)) == len(order) and all(0 <= axis < len(shape) for axis in order),
        f"order {order} is none of the axes of {layer.bottom(0)}",
    )
    order += [axis for axis in range(len(shape)) if axis not in order]
    return Made([tuple(shape[axis] for axis in order)])


@fork("PriorBox", bottoms=2)
def _prior_box(layer: Layer) -> Made:
    """prior_box_layer.cpp: boxes for each place of a map, then their variances."""
    layer.num_axes(4)
    flips = layer.setting("prior_box_param", "flip", "true") == "true"
    ratios = [1.0]
    for value in layer.settings("prior_box_param", "aspect_ratio"):
        ratio = layer.real(value)
        layer.check(ratio > 0, "aspect_ratio must be positive")
        if any(abs(ratio - other) < 1e-6 for other in ratios):
            continue
        ratios += [ratio, 1 / ratio] if flips else [ratio]
    smallest = len(layer.settings("prior_box_param", "min_size"))
    layer.check(smallest > 0, "prior_box_param wants min_size")
    boxes = len(ratios) * smallest + len(layer.settings("prior_box_param", "max_size"))
    return Made([(1, 2, count(layer.bottoms[0], 2) * boxes * 4)])


@fork("DetectionOutput", bottoms=(3, None), blind=True)
def _detection_output(layer: Layer) -> Made:  # noqa: ARG001
    """One row, as the layer says before it has run."""
    return Made([(1, 1, 1, 7)])


@fork("MultiBoxLoss", bottoms=4, tops=(1, 2), loss=True, blind=True)
@fork("SmoothL1Loss", bottoms=(2, 4), loss=True, blind=True)
def _loss(layer: Layer) -> Made:
    return Made([()] * layer.num_tops)


@fork("AnnotatedData", bottoms=0, tops=(1, 2))
def _annotated_data(layer: Layer) -> Made:
    """Images of ``resize_param``, and a row of eight numbers for each object."""
    batch = layer.batch_size or layer.proto.data_param.batch_size
    layer.check(batch > 0, "batch_size must be positive")
    crop = layer.proto.transform_param.crop_size
    sizes = [
        layer.whole(layer.setting("transform_param", "resize_param", name, "0")) or crop
        for name in ("height", "width")
    ]
    image = (batch, 3, *sizes) if all(sizes) else UNKNOWN
    if layer.records:
        image = (batch, *layer.records[0][-3:])
    return Made([image, (1, 1, 1, 8)][: layer.num_tops], partial=image is UNKNOWN)


def _pooled(layer: Layer, param: str, channels: int) -> Made:
    names = ("pooled_h", "pooled_w") if param != "psroi_pooling_param" else ("group_size",) * 2
    sizes = [layer.whole(layer.setting(param, name, "0")) for name in names]
    layer.check(all(size > 0 for size in sizes), f"{param} wants {names[0]}")
    layer.check(bool(layer.bottoms[1]), f"{layer.bottom(1)} holds no regions")
    return Made([(layer.bottoms[1][0], channels, *sizes)])


@fork("ROIPooling", bottoms=2, tops=(1, 2))
def _roi_pooling(layer: Layer) -> Made:
    layer.num_axes(4)
    made = _pooled(layer, "roi_pooling_param", layer.bottoms[0][1])
    return Made([*made.tops] * layer.num_tops)


@fork("ROIAlign", bottoms=2)
def _roi_align(layer: Layer) -> Made:
    layer.num_axes(4)
    return _pooled(layer, "roi_align_param", layer.bottoms[0][1])


@fork("PSROIPooling", bottoms=2)
def _position_sensitive_pooling(layer: Layer) -> Made:
    layer.num_axes(4)
    channels = layer.whole(layer.setting("psroi_pooling_param", "output_dim", "0"))
    return _pooled(layer, "psroi_pooling_param", channels)


@fork("Axpy", bottoms=3)
def _scaled_sum(layer: Layer) -> Made:
    """axpy_layer.cpp: a factor for each channel times the second bottom plus the third."""
    layer.check(
        layer.bottoms[1] == layer.bottoms[2],
        f"{layer.bottom(1)} and {layer.bottom(2)} must have the same shape",
    )
    return Made([layer.bottoms[1]])


@fork("BN", "bn")
def _batch_normalization(layer: Layer) -> Made:
    """SegNet's and PSPNet's: scale and shift are learned; some builds keep statistics as well."""
    layer.check(len(layer.bottoms[0]) >= 2, f"{layer.bottom(0)} must have channels")
    channels = layer.bottoms[0][1]
    return Made([layer.bottoms[0]], [(1, channels, 1, 1)] * 2)


@fork("Upsample", "UPSAMPLE", bottoms=(1, 2))
def _upsample(layer: Layer) -> Made:
    """SegNet's: a factor for both sides, or the sizes."""
    layer.num_axes(4)
    scale = layer.setting("upsample_param", "scale", "2")
    sizes = []
    for axis, side in ((2, "h"), (3, "w")):
        told = layer.whole(layer.setting("upsample_param", f"upsample_{side}", "0"))
        factor = layer.whole(layer.setting("upsample_param", f"scale_{side}", scale))
        less = layer.setting("upsample_param", f"pad_out_{side}", "false") == "true"
        sizes.append(told or layer.bottoms[0][axis] * factor - less)
    return Made([(*layer.bottoms[0][:2], *sizes)])


@fork("Interp", "INTERP", bottoms=(1, 2))
def _interpolate(layer: Layer) -> Made:
    """interp_layer.cpp of DeepLab and PSPNet."""
    layer.num_axes(4)
    if len(layer.bottoms) == 2:
        layer.num_axes(4, 1)
        return Made([(*layer.bottoms[0][:2], *layer.bottoms[1][2:])])

    def number(name: str, default: str) -> int:
        return layer.whole(layer.setting("interp_param", name, default))

    pads = number("pad_beg", "0") + number("pad_end", "0")
    shrink, zoom = number("shrink_factor", "0"), number("zoom_factor", "0")
    layer.check(shrink >= 0 and zoom >= 0, "factors must be positive")
    sizes = []
    for axis, name in ((2, "height"), (3, "width")):
        size = layer.bottoms[0][axis] + pads
        if shrink:
            size = (size - 1) // shrink + 1
        if zoom:
            size += (size - 1) * (zoom - 1)
        sizes.append(size if shrink or zoom else number(name, "0"))
    return Made([(*layer.bottoms[0][:2], *sizes)])


@fork("DepthwiseConvolution", "ConvolutionDepthwise")
def _depthwise(layer: Layer) -> Made:
    """A convolution; ConvolutionDepthwise needs no group to have a filter for each channel."""
    layer.num_axes(4)
    if layer.proto.type == "ConvolutionDepthwise":
        layer.param.group = layer.bottoms[0][1]
    return convolve(layer, convolved)


@fork("ImageSegData", bottoms=0, tops=(1, 3))
def _segmentation_data(layer: Layer) -> Made:
    """DeepLab's: images and their label maps, of the same size."""
    param = layer.proto.image_data_param
    batch = layer.batch_size or param.batch_size
    crop = layer.proto.transform_param.crop_size
    size: Shape = (crop, crop) if crop else (param.new_height, param.new_width)
    if layer.records:
        size = layer.records[0][-2:]
    if not all(size):
        return unknown(layer)
    tops = [(batch, 3, *size), (batch, 1, *size), (batch, 1, 1, 2)]
    return Made(tops[: layer.num_tops])


def _one_region(layer: Layer) -> Made:
    """As the layer says before it has run, when it knows how many regions there are."""
    layer.notes.append(f"layer {layer.proto.name!r}: figures behind it are those of one region")
    return Made([(1, 5), (1, 1, 1, 1)][: layer.num_tops])


@fork("Proposal", bottoms=3, tops=(1, 2), blind=True)
def _proposal(layer: Layer) -> Made:
    return _one_region(layer)


def _roi_data(layer: Layer) -> Made:
    """Faster R-CNN's own reader of images; their size stands in its configuration."""
    if layer.records or layer.num_tops != 3:
        return unknown(layer)
    layer.notes.append(
        f"layer {layer.proto.name!r}: images taken as 600x1000, as in Faster R-CNN's configuration"
    )
    return Made([(1, 3, 600, 1000), (1, 3), (1, 4)])


def _anchor_targets(layer: Layer) -> Made:
    """Faster R-CNN's anchor_target_layer.py; two scores for each anchor come in."""
    layer.num_axes(4)
    _, scores, height, width = layer.bottoms[0]
    anchors = scores // 2
    boxes = (1, 4 * anchors, height, width)
    return Made([(1, 1, anchors * height, width), boxes, boxes, boxes][: layer.num_tops])


def _proposal_targets(layer: Layer) -> Made:
    """Faster R-CNN's proposal_target_layer.py; its classes stand in ``param_str``."""
    classes = re.search(r"num_classes\W{1,3}(\d{1,6})", layer.proto.python_param.param_str)
    if classes is None:
        return unknown(layer)
    layer.notes.append(f"layer {layer.proto.name!r}: figures behind it are those of one region")
    boxes = (1, 4 * int(classes[1]))
    return Made([(1, 5), (1, 1), boxes, boxes, boxes][: layer.num_tops])


_PYTHON: dict[str, tuple[Callable[[Layer], Made], bool]] = {
    "ProposalLayer": (_one_region, True),
    "RoIDataLayer": (_roi_data, True),
    "AnchorTargetLayer": (_anchor_targets, False),
    "ProposalTargetLayer": (_proposal_targets, True),
}


def foreign_rule(proto: Any, told: Mapping[str, tuple[str, ...]]) -> Rule:
    """The rule of a layer of any Caffe.

    Args:
        proto: the LayerParameter.
        told: the tops of a layer or layer type, as the user says them.
    """
    named = told.get(proto.name) or told.get(proto.type)
    if named:
        return told_rule(named)
    if proto.type == "Python":
        function, blind = _PYTHON.get(proto.python_param.layer, (unknown, True))
        return Rule(function, (0, None), (0, None), blind=blind)
    return rule_of(proto.type) or FORK_RULES.get(proto.type, UNKNOWN_RULE)
