"""The layers that the blocks are made of, as functions from tops to tops.

A convolution is convolution without bias, BatchNorm, Scale, ReLU; every filler is set, since
Caffe's default filler is a constant zero. BatchNorm's three blobs are frozen against the solver
(they are statistics, not weights) and ``use_global_stats`` is left to the phase. A literal builder
repeats the net of the original run of 2016 instead, with its flaws.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from irv2caffe.net.spec import NetSpec, Top

Kernel = int | tuple[int, int]
_FROZEN = {"lr_mult": 0.0, "decay_mult": 0.0}
_SHIFT = {"lr_mult": 1.0, "decay_mult": 0.0}


class GridError(UsageError):
    """A size of input at which the branches of a block do not meet, or nothing is left of it."""


@dataclass
class Builder:
    """A net under construction and the choices that every block of it shares.

    Attributes:
        net: where the layers go.
        width: multiplies every number of filters; 1 is the published net.
        weight_filler: FillerParameter of convolutions and inner products.
        bn_eps: added to the variance.
        bn_fraction: BatchNorm's ``moving_average_fraction``.
        gamma: whether Scale learns a multiplier; TF-slim's nets have none.
        residual_bn: BatchNorm on the residual up-projections too, as the 2016 ports had.
        exact_average: average pools divide by the pixels under the window, as TensorFlow's do.
        literal: repeat the net of 2016: biases before BatchNorm, no ReLU after the additions, and
            statistics of the batch also in tests.
        for_use: a deploy net, whose BatchNorm has its statistics in any case.
        phase: ``TRAIN`` or ``TEST`` while the layers of one phase only are built.
        rounded_up: pools that gave a larger grid than TensorFlow's, because Caffe's round up.
    """

    net: NetSpec
    width: float
    weight_filler: dict[str, Any]
    bn_eps: float
    bn_fraction: float
    gamma: bool
    residual_bn: bool
    exact_average: bool
    literal: bool = False
    for_use: bool = False
    phase: str | None = None
    rounded_up: list[str] = field(default_factory=list)

    def filters(self, num_output: int) -> int:
        """``num_output`` times the width, at least 1."""
        return max(1, int(num_output * self.width + 0.5))

    def layer(self, layer_type: str, name: str, *bottoms: Top, **fields: Any) -> Top:
        """A layer of the phase under construction; see :meth:`NetSpec.layer`."""
        fields.setdefault("size", bottoms[0].size if bottoms else 0)
        return self.net.layer(layer_type, name, *bottoms, phase=self.phase, **fields)


def conv(
    b: Builder, name: str, x: Top, num_output: int, kernel: Kernel, stride: int = 1, pad: str = ""
) -> Top:
    """Convolution, BatchNorm, Scale, ReLU; ``pad="same"`` keeps the size at stride 1."""
    x = _convolution(b, name, x, b.filters(num_output), kernel, stride, pad, bias=b.literal)
    x = _normalize(b, name, x)
    return relu(b, name, x)


def linear(b: Builder, name: str, x: Top, channels: int) -> Top:
    """The 1x1 up-projection at the end of a residual branch: no ReLU, biased unless BatchNorm'd."""
    bias = not b.residual_bn or b.literal
    x = _convolution(b, name, x, channels, 1, 1, "", bias=bias)
    return _normalize(b, name, x) if b.residual_bn else x


def _convolution(
    b: Builder,
    name: str,
    x: Top,
    num_output: int,
    kernel: Kernel,
    stride: int,
    pad: str,
    *,
    bias: bool,
) -> Top:
    height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    pad_h, pad_w = (height // 2, width // 2) if pad == "same" else (int(pad or 0), int(pad or 0))
    if height > x.size + 2 * pad_h or width > x.size + 2 * pad_w:
        raise GridError(f"layer {name}: a kernel of {max(height, width)} on a grid of {x.size}")
    fields: dict[str, Any] = {"num_output": num_output}
    if height == width:
        fields |= {"kernel_size": [height], **({"pad": [pad_h]} if pad_h else {})}
    else:
        fields |= {"kernel_h": height, "kernel_w": width}
        if pad_h or pad_w:
            fields |= {"pad_h": pad_h, "pad_w": pad_w}
    if stride != 1:
        fields |= {"stride": [stride]}
    fields |= {"weight_filler": b.weight_filler}
    if b.literal:  # a bias that the BatchNorm after it cancels
        weights, biases = {"lr_mult": 1.0, "decay_mult": 1.0}, {"lr_mult": 2.0, "decay_mult": 0.0}
        fields |= {"bias_filler": {"type": "constant", "value": 0.2}, "param": [weights, biases]}
    elif bias:  # decays like the weights, as in TF-slim's arg scope
        fields |= {"bias_filler": {"type": "constant", "value": 0.0}}
    else:
        fields |= {"bias_term": False}
    size = (x.size + 2 * pad_h - height) // stride + 1
    return b.layer("Convolution", name, x, channels=num_output, size=size, **fields)


def _normalize(b: Builder, name: str, x: Top) -> Top:
    """BatchNorm and the learned shift (and multiplier) after it, both in place."""
    if b.literal:
        flag = {} if b.for_use else {"use_global_stats": False}
        x = b.layer("BatchNorm", f"{name}_bn", x, channels=x.channels, in_place=True, **flag)
        return _scale(b, name, x)
    x = b.layer(
        "BatchNorm",
        f"{name}_bn",
        x,
        channels=x.channels,
        in_place=True,
        param=[_FROZEN, _FROZEN, _FROZEN],
        eps=b.bn_eps,
        moving_average_fraction=b.bn_fraction,
    )
    return _scale(b, name, x, param=[_SHIFT if b.gamma else _FROZEN, _SHIFT])


def _scale(b: Builder, name: str, x: Top, **fields: Any) -> Top:
    fields |= {"filler": {"type": "constant", "value": 1.0}, "bias_term": True}
    fields |= {"bias_filler": {"type": "constant", "value": 0.0}}
    return b.layer("Scale", f"{name}_scale", x, channels=x.channels, in_place=True, **fields)


def relu(b: Builder, name: str, x: Top) -> Top:
    """Rectifies in place."""
    return b.layer("ReLU", f"{name}_relu", x, channels=x.channels, in_place=True)


def max_pool(b: Builder, name: str, x: Top) -> Top:
    """3x3 maximum, stride 2, no padding.

    Caffe rounds up where TensorFlow rounds down (pooling_layer.cpp); the two agree on odd grids.
    """
    if x.size < 3:
        raise GridError(f"layer {name}: a window of 3 on a grid of {x.size}")
    if x.size % 2 == 0:
        b.rounded_up.append(name)
    return b.layer(
        "Pooling",
        name,
        x,
        channels=x.channels,
        size=x.size // 2,
        pool="MAX",
        kernel_size=3,
        stride=2,
    )


def average_pool(b: Builder, name: str, x: Top) -> Top:
    """3x3 average, stride 1, same size.

    Caffe divides by 9 at the borders too, TensorFlow by the pixels under the window. The latter is
    made of stock layers: the same pool over an image of ones gives the share of pixels, and its
    inverse multiplies the pool's result.
    """
    window: dict[str, Any] = {"pool": "AVE", "kernel_size": 3, "stride": 1, "pad": 1}
    pooled = b.layer("Pooling", name, x, channels=x.channels, **window)
    if not b.exact_average:
        return pooled
    size = x.size
    one = {"type": "constant", "value": 1.0}
    shape = [{"dim": [1, 1, size, size]}]
    ones = b.layer(
        "DummyData", f"{name}_ones", channels=1, size=size, shape=shape, data_filler=[one]
    )
    share = b.layer("Pooling", f"{name}_share", ones, channels=1, **window)
    inverse = b.layer("Power", f"{name}_inverse", share, channels=1, power=-1.0)
    grid = b.layer("Reshape", f"{name}_grid", inverse, channels=1, shape={"dim": [size, size]})
    return b.layer("Scale", f"{name}_exact", pooled, grid, channels=x.channels, axis=2)


def valid_average_pool(b: Builder, name: str, x: Top, *, kernel: int, stride: int) -> Top:
    """An average without padding, on a grid that its stride divides."""
    if x.size < kernel or (x.size - kernel) % stride:
        raise GridError(f"layer {name}: windows of {kernel} every {stride} on a grid of {x.size}")
    size = (x.size - kernel) // stride + 1
    fields = {"pool": "AVE", "kernel_size": kernel, "stride": stride}
    return b.layer("Pooling", name, x, channels=x.channels, size=size, **fields)


def concat(b: Builder, name: str, *tops: Top) -> Top:
    """Joins along the channels."""
    if len({top.size for top in tops}) > 1:
        sizes = ", ".join(f"{top.name} {top.size}" for top in tops)
        raise GridError(f"layer {name} would join different grids: {sizes}")
    return b.layer("Concat", name, *tops, channels=sum(top.channels for top in tops))


def global_average(b: Builder, name: str, x: Top) -> Top:
    """The average of every channel."""
    fields = {"pool": "AVE", "global_pooling": True}
    return b.layer("Pooling", name, x, channels=x.channels, size=1, **fields)


def dropout(b: Builder, name: str, x: Top, ratio: float) -> Top:
    """Drops in place, in training; nothing where the ratio is 0."""
    if ratio == 0:
        return x
    return b.layer("Dropout", name, x, channels=x.channels, in_place=True, dropout_ratio=ratio)


def inner_product(b: Builder, name: str, x: Top, num_output: int) -> Top:
    """The logits of a classifier."""
    fields = {"weight_filler": b.weight_filler, "bias_filler": {"type": "constant", "value": 0.0}}
    return b.layer(
        "InnerProduct", name, x, channels=num_output, size=0, num_output=num_output, **fields
    )
