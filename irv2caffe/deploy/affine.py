"""Layers that multiply and add per channel, and their merging into the layers around them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.deploy.graph import Node
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from irv2caffe.deploy.graph import Value

LINEAR = frozenset({"Convolution", "Deconvolution", "InnerProduct"})
_FUSED = 5  # blobs of NVCaffe's BatchNorm


@dataclass(frozen=True)
class Affine:
    """y = factor * x + shift.

    Attributes:
        factor: float64, one number, or one for each channel (axis 1).
        shift: of the same kind.
    """

    factor: NDArray[np.float64]
    shift: NDArray[np.float64]

    @classmethod
    def of(cls, factor: Any, shift: Any = 0.0) -> Affine:
        """From numbers or arrays; both get the same shape."""
        both = np.broadcast_arrays(np.asarray(factor, "f8"), np.asarray(shift, "f8"))
        return cls(*both)

    def then(self, after: Affine) -> Affine:
        """Both, one after the other."""
        return Affine.of(self.factor * after.factor, self.shift * after.factor + after.shift)


def affine_of(node: Node) -> Affine | None:
    """What a layer does to each channel; None for a layer that does something else."""
    if len(node.bottoms) != 1 or len(node.tops) != 1:
        return None
    if node.type == "BatchNorm":
        return _of_batch_norm(node)
    if node.type == "Power" and node.proto.power_param.power == 1:
        return Affine.of(node.proto.power_param.scale, node.proto.power_param.shift)
    if node.type in {"Scale", "Bias"} and node.blobs:
        param = node.proto.scale_param if node.type == "Scale" else node.proto.bias_param
        blobs = [_per_channel(blob, param.axis, node.bottoms[0]) for blob in node.blobs]
        if any(blob is None for blob in blobs):
            return None
        return Affine.of(*blobs) if node.type == "Scale" else Affine.of(1.0, blobs[0])
    return None


def _of_batch_norm(node: Node) -> Affine:
    """batch_norm_layer.cpp with use_global_stats.

    NVCaffe's has five blobs: it does not divide by the third, and has scale and bias inside
    (TensorRT's parser of Caffe's nets reads them so, too).
    """
    mean, variance, factor = (blob.astype("f8") for blob in node.blobs[:3])
    is_fused = len(node.blobs) == _FUSED
    count = 1.0 if is_fused else 0.0 if factor[0] == 0 else 1.0 / factor[0]
    multiplier = 1.0 / np.sqrt(variance * count + float(node.proto.batch_norm_param.eps))
    norm = Affine.of(multiplier, -mean * count * multiplier)
    if is_fused:
        norm = norm.then(Affine.of(node.blobs[3].astype("f8"), node.blobs[4].astype("f8")))
    return norm


def _per_channel(blob: NDArray[np.float32], axis: int, bottom: Value) -> Any:
    """The blob of a Scale or Bias as one number, or one for each channel; else None."""
    shape = bottom.shape
    if blob.size == 1:
        return blob.astype("f8").reshape(())
    first = axis if axis >= 0 else axis + len(shape)
    if first == 1 and len(shape) > 1 and blob.size == shape[1]:
        return blob.astype("f8").ravel()
    return None


def affine_node(name: str, affine: Affine, bottom: Value, top: Value) -> Node:
    """A Scale layer; its bias is always written, since some parsers read one in any case."""
    if affine.factor.ndim == 0 and len(bottom.shape) < 2:  # no channels: one factor for all
        proto = messages.LayerParameter(name=name, type="Power")
        proto.power_param.scale, proto.power_param.shift = float(affine.factor), float(affine.shift)
        return Node(proto, [bottom], [top])
    proto = messages.LayerParameter(name=name, type="Scale")
    proto.scale_param.bias_term = True
    channels = affine.factor.size if affine.factor.ndim else bottom.shape[1]
    blobs = [
        np.ascontiguousarray(np.broadcast_to(each, (channels,)), "f4")
        for each in (affine.factor, affine.shift)
    ]
    return Node(proto, [bottom], [top], blobs)


def can_take(node: Node, affine: Affine) -> bool:
    """Whether an affine layer behind a linear layer can be merged into its weights."""
    if node.type not in LINEAR or not node.blobs or len(node.bottoms) != 1 or len(node.tops) != 1:
        return False
    if node.type == "InnerProduct":
        axis, axes = node.proto.inner_product_param.axis, len(node.bottoms[0].shape)
        return affine.factor.ndim == 0 or axis in {1, 1 - axes}
    param = node.proto.convolution_param
    return affine.factor.ndim == 0 or param.axis == 1


def apply_after(node: Node, affine: Affine) -> None:
    """Merges an affine layer behind a linear layer into its weights and bias, in float64."""
    weight = node.blobs[0].astype("f8")
    param = _linear_param(node)
    outputs = param.num_output
    factor, shift = (np.broadcast_to(each, (outputs,)) for each in (affine.factor, affine.shift))
    bias = node.blobs[1].astype("f8") if param.bias_term else np.zeros(outputs)
    bias = bias * factor + shift
    if node.type == "Deconvolution":  # inputs, outputs of the group, height, width
        grouped = weight.reshape(param.group, -1, outputs // param.group, *weight.shape[2:])
        each = factor.reshape(param.group, 1, -1, *(1,) * (weight.ndim - 2))
        weight = (grouped * each).reshape(weight.shape)
    elif node.type == "InnerProduct" and param.transpose:
        weight = weight * factor
    else:
        weight = weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    _set_weights(node, weight, bias)


def can_take_before(node: Node, affine: Affine) -> bool:
    """Whether an affine layer before a linear layer can be merged into its weights.

    The zeros of padding are not shifted, so that a shift must not meet padding.
    """
    if node.type not in {"Convolution", "InnerProduct"} or not node.blobs or len(node.bottoms) != 1:
        return False
    if node.type == "InnerProduct":
        return node.proto.inner_product_param.axis == 1 and len(node.bottoms[0].shape) > 1
    param = node.proto.convolution_param
    padded = any(param.pad) or param.pad_h or param.pad_w
    return param.axis == 1 and not (padded and np.any(affine.shift))


def apply_before(node: Node, affine: Affine) -> None:
    """Merges an affine layer before a linear layer into its weights and bias, in float64."""
    weight = node.blobs[0].astype("f8")
    param = _linear_param(node)
    channels = node.bottoms[0].shape[1]
    factor, shift = (np.broadcast_to(each, (channels,)) for each in (affine.factor, affine.shift))
    if node.type == "InnerProduct":
        area = math.prod(node.bottoms[0].shape[2:])
        rows = weight.T if param.transpose else weight
        added = rows @ np.repeat(shift, area)
        rows = rows * np.repeat(factor, area)
        weight = rows.T if param.transpose else rows
    else:
        grouped = weight.reshape(param.group, -1, channels // param.group, *weight.shape[2:])
        axes = tuple(range(2, grouped.ndim))
        each = (param.group, 1, -1, *(1,) * (weight.ndim - 2))
        added = (grouped * shift.reshape(each)).sum(axis=axes).ravel()
        weight = (grouped * factor.reshape(each)).reshape(weight.shape)
    bias = node.blobs[1].astype("f8") if param.bias_term else np.zeros(param.num_output)
    _set_weights(node, weight, bias + added)


def _linear_param(node: Node) -> Any:
    if node.type == "InnerProduct":
        return node.proto.inner_product_param
    return node.proto.convolution_param


def _set_weights(node: Node, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    """Sets both as float32; without a bias if it is zero and there was none."""
    param = _linear_param(node)
    if param.bias_term or np.any(bias):
        param.ClearField("bias_term")  # the default is true
        node.blobs = [weight.astype("f4"), bias.astype("f4")]
    else:
        node.blobs = [weight.astype("f4")]
