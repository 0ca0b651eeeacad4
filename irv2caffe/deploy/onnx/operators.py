"""The ONNX operators of each layer type, by the formulas in Caffe's layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.deploy.onnx.windows import convolution, deconvolution, pooling
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from irv2caffe.deploy.graph import Node
    from irv2caffe.deploy.onnx.writing import Writing

_ELTWISE = messages.message_class("EltwiseParameter")
_LRN = messages.message_class("LRNParameter")


def unsupported(node: Node) -> bool:
    """Whether a layer cannot be written."""
    if node.type in {"Convolution", "Deconvolution"}:
        return node.proto.convolution_param.axis != 1 or len(node.bottoms) != 1
    if node.type == "LRN":
        return bool(node.proto.lrn_param.norm_region != _LRN.ACROSS_CHANNELS)
    if node.type == "Pooling":
        param = node.proto.pooling_param
        return param.pool not in {param.MAX, param.AVE} or len(node.tops) != 1
    return node.type not in OPERATORS


def _inner_product(w: Writing, node: Node) -> None:
    param = node.proto.inner_product_param
    shape = node.bottoms[0].shape
    axis = param.axis if param.axis >= 0 else param.axis + len(shape)
    weight = node.blobs[0].T if param.transpose else node.blobs[0]  # outputs, inputs
    bias = node.blobs[1] if param.bias_term else np.zeros(len(weight), "f4")
    x = w.bottom(node)
    if axis == 1:
        steps: list[Any] = [("Flatten", [], {"axis": 1})] if len(shape) > 2 else []
        others = [w.constant(node, "weight", weight), w.constant(node, "bias", bias)]
        w.chain(node, x, *steps, ("Gemm", others, {"transB": 1}))
        return
    flat = w.numbers(node, "shape", *w.open_shape([*shape[:axis], math.prod(shape[axis:])]))
    factor = w.constant(node, "weight", weight.T)
    summand = w.constant(node, "bias", bias)
    w.chain(node, x, ("Reshape", [flat], {}), ("MatMul", [factor], {}), ("Add", [summand], {}))


def _scale(w: Writing, node: Node) -> None:
    param = node.proto.scale_param
    biases = node.blobs[-1:] if param.bias_term else []
    steps: list[Any] = []
    if len(node.bottoms) == 2:
        steps.append(("Mul", [_aligned(w, node, param.axis)], {}))
    else:
        steps.append(("Mul", [w.constant(node, "factor", _spread(node, 0, param.axis))], {}))
    if biases and np.any(biases[0]):
        bias = _spread(node, len(node.blobs) - 1, param.axis)
        steps.append(("Add", [w.constant(node, "bias", bias)], {}))
    w.chain(node, w.bottom(node), *steps)


def _bias(w: Writing, node: Node) -> None:
    axis = node.proto.bias_param.axis
    if len(node.bottoms) == 2:
        summand = _aligned(w, node, axis)
    else:
        summand = w.constant(node, "bias", _spread(node, 0, axis))
    w.chain(node, w.bottom(node), ("Add", [summand], {}))


def _spread(node: Node, at: int, axis: int) -> NDArray[np.float32]:
    """A blob with axes of size 1 behind, so that it meets the bottom's axes from ``axis`` on."""
    axes = len(node.bottoms[0].shape)
    blob = node.blobs[at]
    first = axis if axis >= 0 else axis + axes
    return blob.reshape(*blob.shape, *(1,) * (axes - first - blob.ndim)) if blob.ndim else blob


def _aligned(w: Writing, node: Node, axis: int) -> str:
    """The second bottom, in the same way."""
    axes = len(node.bottoms[0].shape)
    shape = node.bottoms[1].shape
    first = axis if axis >= 0 else axis + axes
    behind = axes - first - len(shape)
    name = w.bottom(node, 1)
    if behind <= 0 or not shape:
        return name
    wanted = w.numbers(node, "shape", *w.open_shape([*shape, *(1,) * behind]))
    top = w.name(f"{node.name}/aligned")
    w.model.add("Reshape", w.name(node.name), [name, wanted], [top])
    return top


def _batch_norm(w: Writing, node: Node) -> None:
    mean, variance, factor = (blob.astype("f8") for blob in node.blobs[:3])
    count = 0.0 if factor[0] == 0 else 1 / factor[0]
    arrays = {"scale": np.ones(mean.shape), "bias": np.zeros(mean.shape)}
    arrays |= {"mean": mean * count, "variance": variance * count}
    others = [w.constant(node, key, values.astype("f4")) for key, values in arrays.items()]
    eps = float(node.proto.batch_norm_param.eps)
    w.chain(node, w.bottom(node), ("BatchNormalization", others, {"epsilon": eps}))


def _eltwise(w: Writing, node: Node) -> None:
    param = node.proto.eltwise_param
    names = [w.bottom(node, at) for at in range(len(node.bottoms))]
    for at, factor in enumerate(param.coeff if param.operation == _ELTWISE.SUM else ()):
        if factor != 1:
            scaled = w.name(f"{node.name}/scaled")
            inputs = [names[at], w.scalar(node, "factor", factor)]
            w.model.add("Mul", w.name(node.name), inputs, [scaled])
            names[at] = scaled
    operator = {_ELTWISE.SUM: "Add", _ELTWISE.PROD: "Mul", _ELTWISE.MAX: "Max"}[param.operation]
    w.chain(node, names[0], *((operator, [name], {}) for name in names[1:]))


def _concat(w: Writing, node: Node) -> None:
    param = node.proto.concat_param
    axis = param.concat_dim if param.HasField("concat_dim") else param.axis
    others = [w.bottom(node, at) for at in range(1, len(node.bottoms))]
    w.chain(node, w.bottom(node), ("Concat", others, {"axis": axis}))


def _slice(w: Writing, node: Node) -> None:
    param = node.proto.slice_param
    axis = param.slice_dim if param.HasField("slice_dim") else param.axis
    sizes = w.numbers(node, "sizes", *(top.shape[axis] for top in node.tops))
    tops = [w.top(node, at) for at in range(len(node.tops))]
    w.model.add("Split", w.name(node.name), [w.bottom(node), sizes], tops, axis=axis)


def _reshape(w: Writing, node: Node) -> None:
    """Also Flatten; the batch stays open."""
    shape = node.tops[0].shape
    if node.type == "Flatten" and len(shape) == 2:
        w.chain(node, w.bottom(node), ("Flatten", [], {"axis": 1}))
        return
    wanted = w.numbers(node, "shape", *w.open_shape(shape))
    w.chain(node, w.bottom(node), ("Reshape", [wanted], {}))


def _power(w: Writing, node: Node) -> None:
    param = node.proto.power_param
    steps: list[Any] = _linear(w, node, param)
    if param.power != 1:
        steps.append(("Pow", [w.scalar(node, "power", param.power)], {}))
    w.chain(node, w.bottom(node), *steps or [("Identity", [], {})])


def _exp(w: Writing, node: Node) -> None:
    """base^(scale x + shift); -1 stands for e."""
    param = node.proto.exp_param
    rate = 1.0 if param.base == -1 else math.log(param.base)
    steps = _linear(w, node, param)
    steps.append(("Mul", [w.scalar(node, "rate", rate)], {}))
    w.chain(node, w.bottom(node), *steps, ("Exp", [], {}))


def _log(w: Writing, node: Node) -> None:
    """The logarithm of (scale x + shift) to the base."""
    param = node.proto.log_param
    rate = 1.0 if param.base == -1 else 1 / math.log(param.base)
    last: Any = ("Mul", [w.scalar(node, "rate", rate)], {})
    w.chain(node, w.bottom(node), *_linear(w, node, param), ("Log", [], {}), last)


def _linear(w: Writing, node: Node, param: Any) -> list[Any]:
    steps: list[Any] = []
    if param.scale != 1:
        steps.append(("Mul", [w.scalar(node, "scale", param.scale)], {}))
    if param.shift != 0:
        steps.append(("Add", [w.scalar(node, "shift", param.shift)], {}))
    return steps


def _relu(w: Writing, node: Node) -> None:
    slope = float(node.proto.relu_param.negative_slope)
    step: Any = ("LeakyRelu", [], {"alpha": slope}) if slope else ("Relu", [], {})
    w.chain(node, w.bottom(node), step)


def _prelu(w: Writing, node: Node) -> None:
    slope = node.blobs[0].reshape(-1, *(1,) * (len(node.bottoms[0].shape) - 2))
    w.chain(node, w.bottom(node), ("PRelu", [w.constant(node, "slope", slope)], {}))


def _elu(w: Writing, node: Node) -> None:
    alpha = float(node.proto.elu_param.alpha)
    w.chain(node, w.bottom(node), ("Elu", [], {"alpha": alpha}))


def _softmax(w: Writing, node: Node) -> None:
    w.chain(node, w.bottom(node), ("Softmax", [], {"axis": node.proto.softmax_param.axis}))


def _lrn(w: Writing, node: Node) -> None:
    param = node.proto.lrn_param
    values = {"alpha": float(param.alpha), "beta": float(param.beta), "bias": float(param.k)}
    w.chain(node, w.bottom(node), ("LRN", [], {"size": param.local_size, **values}))


def _clip(w: Writing, node: Node) -> None:
    param = node.proto.clip_param
    bounds = [w.scalar(node, name, getattr(param, name)) for name in ("min", "max")]
    w.chain(node, w.bottom(node), ("Clip", bounds, {}))


def _plain(operator: str) -> Callable[[Writing, Node], None]:
    """An operator without attributes."""

    def write(w: Writing, node: Node) -> None:
        w.chain(node, w.bottom(node), (operator, [], {}))

    return write


OPERATORS: dict[str, Callable[[Writing, Node], None]] = {
    "AbsVal": _plain("Abs"),
    "BNLL": _plain("Softplus"),
    "BatchNorm": _batch_norm,
    "Bias": _bias,
    "Clip": _clip,
    "Concat": _concat,
    "Convolution": convolution,
    "Deconvolution": deconvolution,
    "ELU": _elu,
    "Eltwise": _eltwise,
    "Exp": _exp,
    "Flatten": _reshape,
    "InnerProduct": _inner_product,
    "LRN": _lrn,
    "Log": _log,
    "PReLU": _prelu,
    "Pooling": pooling,
    "Power": _power,
    "ReLU": _relu,
    "Reshape": _reshape,
    "Scale": _scale,
    "Sigmoid": _plain("Sigmoid"),
    "Slice": _slice,
    "Softmax": _softmax,
    "TanH": _plain("Tanh"),
}
