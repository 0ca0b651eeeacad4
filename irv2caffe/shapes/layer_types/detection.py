"""Shape rules of layer types of detectors: SSD, Faster R-CNN, R-FCN and PVANet.

Each rule follows the LayerSetUp and Reshape of its fork: src/caffe/layers of weiliu89/caffe (SSD),
rbgirshick/caffe-fast-rcnn, daijifeng001/caffe-rfcn and, for Proposal, of
openvinotoolkit/training_toolbox_caffe; lib/rpn of rbgirshick/py-faster-rcnn.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from irv2caffe.shapes.layer_types.base import (
    SHAPE_RULES,
    UNKNOWN,
    LayerSetup,
    LayerShapes,
    ShapeRule,
    count,
)
from irv2caffe.shapes.layer_types.fork_layers import (
    FORK_RULES,
    UNKNOWN_RULE,
    crop_of,
    fork,
    unknown,
)
from irv2caffe.shapes.layer_types.given import given_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@fork("PriorBox", bottoms=2)
def _prior_box(layer: LayerSetup) -> LayerShapes:
    """prior_box_layer.cpp: boxes for each position of a map, then their variances."""
    layer.check_axes(4)
    flips = layer.setting("prior_box_param", "flip", "true") == "true"
    ratios = [1.0]
    for value in layer.settings("prior_box_param", "aspect_ratio"):
        ratio = layer.parse_float(value)
        layer.check(ratio > 0, "aspect_ratio must be positive")
        if any(abs(ratio - other) < 1e-6 for other in ratios):
            continue
        ratios += [ratio, 1 / ratio] if flips else [ratio]
    smallest, largest = (
        [layer.parse_float(size) for size in layer.settings("prior_box_param", name)]
        for name in ("min_size", "max_size")
    )
    layer.check(bool(smallest), "prior_box_param needs min_size")
    layer.check(len(largest) in {0, len(smallest)}, "as many max_size as min_size, or none")
    if not all(small < large for small, large in zip(smallest, largest, strict=False)):
        layer.fail("max_size must be larger than min_size")
    boxes = len(ratios) * len(smallest) + len(largest)
    return LayerShapes([(1, 2, count(layer.bottoms[0], 2) * boxes * 4)])


@fork("DetectionOutput", bottoms=(3, 4), ignores_bottoms=True)
def _detection_output(layer: LayerSetup) -> LayerShapes:  # noqa: ARG001
    """detection_output_layer.cpp: one row, before the first pass."""
    return LayerShapes([(1, 1, 1, 7)])


@fork("MultiBoxLoss", bottoms=4, tops=(1, 2), loss=True, ignores_bottoms=True)
@fork("SmoothL1Loss", bottoms=(2, 4), loss=True, ignores_bottoms=True)
def _loss(layer: LayerSetup) -> LayerShapes:
    return LayerShapes([()] * layer.num_tops)


@fork("AnnotatedData", bottoms=0, tops=(1, 2))
def _annotated_data(layer: LayerSetup) -> LayerShapes:
    """Images of the size of the crop or ``resize_param``, and eight numbers for each object.

    data_transformer.cpp, InferBlobShape: the resized image is cropped. With FIT_SMALL_SIZE the
    size depends on the image.
    """
    batch = layer.batch_size or layer.proto.data_param.batch_size
    layer.check(batch > 0, "batch_size must be positive")
    sizes = list(crop_of(layer))
    resize = ("transform_param", "resize_param")
    if not all(sizes) and layer.setting(*resize, "resize_mode", "WARP") != "FIT_SMALL_SIZE":
        sizes = [
            size or layer.parse_int(layer.setting(*resize, name, "0"))
            for size, name in zip(sizes, ("height", "width"), strict=True)
        ]
    image = (batch, 3, *sizes) if all(sizes) else UNKNOWN
    if layer.records:
        image = (batch, *layer.records[0][-3:])
    return LayerShapes([image, (1, 1, 1, 8)][: layer.num_tops], partial=image is UNKNOWN)


def _pooled(layer: LayerSetup, param: str, channels: int) -> LayerShapes:
    names = ("pooled_h", "pooled_w") if param != "psroi_pooling_param" else ("group_size",) * 2
    sizes = [layer.parse_int(layer.setting(param, name, "0")) for name in names]
    layer.check(all(size > 0 for size in sizes), f"{param} needs {names[0]}")
    layer.check(bool(layer.bottoms[1]), f"{layer.bottom(1)} holds no regions")
    return LayerShapes([(layer.bottoms[1][0], channels, *sizes)])


@fork("ROIPooling", "ROIAlign", bottoms=2)
def _roi_pooling(layer: LayerSetup) -> LayerShapes:
    layer.check_axes(4)
    param = "roi_pooling_param" if layer.proto.type == "ROIPooling" else "roi_align_param"
    return _pooled(layer, param, layer.bottoms[0][1])


@fork("PSROIPooling", bottoms=2)
def _psroi_pooling(layer: LayerSetup) -> LayerShapes:
    layer.check_axes(4)
    channels = layer.parse_int(layer.setting("psroi_pooling_param", "output_dim", "0"))
    result = _pooled(layer, "psroi_pooling_param", channels)
    wanted = count(result.tops[0], 1)
    if layer.bottoms[0][1] != wanted:
        layer.fail(
            f"{layer.bottom(0)} must have {wanted} channels: output_dim x group_size x group_size"
        )
    return result


def _one_region(layer: LayerSetup) -> LayerShapes:
    """Faster R-CNN's proposal_layer.py, before the first pass: one region."""
    layer.notes.append(f"layer {layer.proto.name!r}: figures of layers after it are for one region")
    return LayerShapes([(1, 5), (1, 1, 1, 1)][: layer.num_tops])


@fork("Proposal", bottoms=3, tops=(1, 2), ignores_bottoms=True)
def _proposal(layer: LayerSetup) -> LayerShapes:
    """proposal_layer.cpp, before the first pass: the largest number of regions per image."""
    kept = layer.parse_int(layer.setting("proposal_param", "post_nms_topn", "300"))
    regions = kept * (layer.bottoms[0][0] if layer.bottoms[0] else 1)
    layer.notes.append(
        f"layer {layer.proto.name!r}: figures of layers after it are for {regions} region(s)"
    )
    return LayerShapes([(regions, 5), (regions,)][: layer.num_tops])


def _roi_data(layer: LayerSetup) -> LayerShapes:
    """Faster R-CNN's RoIDataLayer; the size of its images is set in its configuration."""
    if layer.records or layer.num_tops != 3:
        return unknown(layer)
    layer.notes.append(
        f"layer {layer.proto.name!r}: images taken as 600x1000, as in Faster R-CNN's configuration"
    )
    return LayerShapes([(1, 3, 600, 1000), (1, 3), (1, 4)])


def _anchor_targets(layer: LayerSetup) -> LayerShapes:
    """Faster R-CNN's anchor_target_layer.py; the first bottom has two scores for each anchor."""
    layer.check_axes(4)
    _, scores, height, width = layer.bottoms[0]
    anchors = scores // 2
    boxes = (1, 4 * anchors, height, width)
    return LayerShapes([(1, 1, anchors * height, width), boxes, boxes, boxes][: layer.num_tops])


def _proposal_targets(layer: LayerSetup) -> LayerShapes:
    """Faster R-CNN's proposal_target_layer.py; ``param_str`` gives the number of classes."""
    classes = re.search(r"num_classes\W{1,3}(\d{1,6})", layer.proto.python_param.param_str)
    if classes is None:
        return unknown(layer)
    layer.notes.append(f"layer {layer.proto.name!r}: figures of layers after it are for one region")
    boxes = (1, 4 * int(classes[1]))
    return LayerShapes([(1, 5), (1, 1), boxes, boxes, boxes][: layer.num_tops])


_PYTHON: dict[str, tuple[Callable[[LayerSetup], LayerShapes], bool]] = {
    "ProposalLayer": (_one_region, True),
    "RoIDataLayer": (_roi_data, True),
    "AnchorTargetLayer": (_anchor_targets, False),
    "ProposalTargetLayer": (_proposal_targets, True),
}


def foreign_rule(proto: Any, given: Mapping[str, tuple[str, ...]]) -> ShapeRule:
    """The shape rule of a layer of Caffe 1.0 or of a fork.

    Args:
        proto: the LayerParameter.
        given: shapes of tops that the user gives, by the name of a layer or layer type.
    """
    named = given.get(proto.name) or given.get(proto.type)
    if named:
        return given_rule(named)
    if proto.type == "Python":
        function, ignores_bottoms = _PYTHON.get(proto.python_param.layer, (unknown, True))
        return ShapeRule(function, (0, None), (0, None), ignores_bottoms=ignores_bottoms)
    return SHAPE_RULES.get(proto.type) or FORK_RULES.get(proto.type, UNKNOWN_RULE)
