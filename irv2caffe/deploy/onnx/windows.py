"""The ONNX operators of layers that move a window: convolution, deconvolution, pooling."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.deploy.constants import average_divisors, window

if TYPE_CHECKING:
    from irv2caffe.deploy.graph import Node
    from irv2caffe.deploy.onnx.writing import Writing


def convolution(w: Writing, node: Node) -> None:
    """Conv."""
    _convolve(w, node, "Conv")


def deconvolution(w: Writing, node: Node) -> None:
    """ConvTranspose, whose weights have the same order of axes as Caffe's."""
    _convolve(w, node, "ConvTranspose")


def _convolve(w: Writing, node: Node, operator: str) -> None:
    param = node.proto.convolution_param
    kernel = node.blobs[0].shape[2:]
    pads = _each(param, "pad", len(kernel), 0)
    attributes: dict[str, Any] = {
        "kernel_shape": list(kernel),
        "strides": _each(param, "stride", len(kernel), 1),
        "pads": [*pads, *pads],
        "dilations": _each(param, "dilation", len(kernel), 1),
        "group": param.group,
    }
    others = [w.constant(node, "weight", node.blobs[0])]
    if param.bias_term:
        others.append(w.constant(node, "bias", node.blobs[1]))
    w.chain(node, w.bottom(node), (operator, others, attributes))


def _each(param: Any, name: str, axes: int, default: int) -> list[int]:
    """A setting for each spatial axis: given once, for each axis, or as ``_h`` and ``_w``."""
    if name != "dilation" and (param.HasField(f"{name}_h") or param.HasField(f"{name}_w")):
        return [getattr(param, f"{name}_h"), getattr(param, f"{name}_w")]
    values = list(getattr(param, name)) or [default]
    return values if len(values) == axes else values * axes


def pooling(w: Writing, node: Node) -> None:
    """MaxPool or AveragePool with as much padding behind as Caffe's rounding up needs.

    Caffe's average counts padding, but not what lies behind it: where a window reaches further,
    the result is corrected by a constant map.
    """
    param = node.proto.pooling_param
    is_max = param.pool == param.MAX
    if param.global_pooling:
        w.chain(node, w.bottom(node), ("GlobalMaxPool" if is_max else "GlobalAveragePool", [], {}))
        return
    image, out = node.bottoms[0].shape[2:], node.tops[0].shape[2:]
    kernel, stride, pad = window(param, image)
    behind = [
        max(0, (o - 1) * s + k - size - p)
        for o, s, k, size, p in zip(out, stride, kernel, image, pad, strict=True)
    ]
    attributes: dict[str, Any] = {
        "kernel_shape": list(kernel),
        "strides": list(stride),
        "pads": [*pad, *behind],
    }
    if is_max:
        w.chain(node, w.bottom(node), ("MaxPool", [], attributes))
        return
    attributes["count_include_pad"] = 0 if node in w.exact_pools else 1
    steps: list[Any] = [("AveragePool", [], attributes)]
    if attributes["count_include_pad"]:
        divisors = average_divisors(node)
        if np.any(divisors != math.prod(kernel)):
            factor = (math.prod(kernel) / divisors)[None, None].astype("f4")
            steps.append(("Mul", [w.constant(node, "border", factor)], {}))
    w.chain(node, w.bottom(node), *steps)
