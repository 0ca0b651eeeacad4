"""Layers of the blocks, as functions from tops to tops: convolution, pooling, classifier.

``conv`` is a convolution without bias, BatchNorm, Scale and ReLU. All fillers are set, since
Caffe's default is a constant zero. BatchNorm's blobs are statistics and have ``lr_mult: 0``;
``use_global_stats`` is left to the phase. The variant ``seed`` repeats the net of the original run
of 2016 with its flaws instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from irv2caffe.config import NetOptions
    from irv2caffe.net.spec import NetSpec, Top

Kernel = int | tuple[int, int]
_FROZEN = {"lr_mult": 0.0, "decay_mult": 0.0}
_SHIFT = {"lr_mult": 1.0, "decay_mult": 0.0}
_FILLERS: dict[str, dict[str, Any]] = {
    "glorot": {"type": "xavier", "variance_norm": "AVERAGE"},
    "xavier": {"type": "xavier"},
    "msra": {"type": "msra"},
}


class GridError(UsageError):
    """An input size at which the branches of a block differ in size, or a kernel is too large."""


@dataclass
class Builder:
    """A net under construction.

    Attributes:
        net: receives the layers.
        options: of the network.
        for_use: a deploy net, whose BatchNorm always uses its statistics.
        phase: ``TRAIN`` or ``TEST`` while layers of one phase are added, else None.
        rounded_up: names of pools whose output is larger than TensorFlow's.
    """

    net: NetSpec
    options: NetOptions
    for_use: bool = False
    phase: str | None = None
    rounded_up: list[str] = field(default_factory=list)

    @property
    def literal(self) -> bool:
        """Whether it is the net of 2016.

        That has biases before BatchNorm, no ReLU after the additions, and batch statistics in
        tests.
        """
        return self.options.variant == "seed"

    @property
    def weight_filler(self) -> dict[str, Any]:
        """The FillerParameter of convolutions and inner products."""
        return _FILLERS[self.options.filler]

    def filters(self, num_output: int) -> int:
        """``num_output`` times the width, at least 1."""
        return max(1, int(num_output * self.options.width + 0.5))

    def layer(self, layer_type: str, name: str, *bottoms: Top, **fields: Any) -> Top:
        """Adds a layer; channels and size are by default those of the first bottom."""
        if bottoms:
            fields = {"channels": bottoms[0].channels, "size": bottoms[0].size} | fields
        return self.net.layer(layer_type, name, *bottoms, phase=self.phase, **fields)


def conv(
    b: Builder, name: str, x: Top, num_output: int, kernel: Kernel, stride: int = 1, pad: str = ""
) -> Top:
    """Convolution, BatchNorm, Scale, ReLU; ``pad="same"`` keeps the size at stride 1."""
    x = _convolution(b, name, x, b.filters(num_output), kernel, stride, pad, bias=b.literal)
    x = _normalize(b, name, x)
    return relu(b, name, x)


def linear(b: Builder, name: str, x: Top, channels: int) -> Top:
    """The 1x1 up-projection of a residual block, without ReLU; a bias replaces BatchNorm."""
    bias = not b.options.residual_bn or b.literal
    x = _convolution(b, name, x, channels, 1, 1, "", bias=bias)
    return _normalize(b, name, x) if b.options.residual_bn else x


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
    if b.literal:  # without effect, since BatchNorm follows
        weights, biases = {"lr_mult": 1.0, "decay_mult": 1.0}, {"lr_mult": 2.0, "decay_mult": 0.0}
        fields |= {"bias_filler": {"type": "constant", "value": 0.2}, "param": [weights, biases]}
    elif bias:  # decays like the weights, as in TF-slim's arg scope
        fields |= {"bias_filler": {"type": "constant", "value": 0.0}}
    else:
        fields |= {"bias_term": False}
    size = (x.size + 2 * pad_h - height) // stride + 1
    return b.layer("Convolution", name, x, channels=num_output, size=size, **fields)


def _normalize(b: Builder, name: str, x: Top) -> Top:
    """BatchNorm, and a Scale layer with the learned shift and, if chosen, multiplier."""
    norm: dict[str, Any] = {}
    scale: dict[str, Any] = {"filler": {"type": "constant", "value": 1.0}, "bias_term": True}
    scale |= {"bias_filler": {"type": "constant", "value": 0.0}}
    if not b.literal:
        norm["param"] = [_FROZEN] * 3
        norm |= {"eps": b.options.bn_eps, "moving_average_fraction": b.options.bn_fraction}
        if b.options.bn_statistics == "kept" and not b.for_use:
            norm["use_global_stats"] = True
        scale["param"] = [_SHIFT if b.options.gamma else _FROZEN, _SHIFT]
    elif not b.for_use:
        norm["use_global_stats"] = False
    x = b.layer("BatchNorm", f"{name}_bn", x, in_place=True, **norm)
    return b.layer("Scale", f"{name}_scale", x, in_place=True, **scale)


def relu(b: Builder, name: str, x: Top) -> Top:
    """ReLU in place."""
    return b.layer("ReLU", f"{name}_relu", x, in_place=True)


def max_pool(b: Builder, name: str, x: Top) -> Top:
    """3x3 max pool with stride 2, without padding.

    Caffe rounds its size up, TensorFlow down (pooling_layer.cpp); on odd grids they agree.
    """
    if x.size < 3:
        raise GridError(f"layer {name}: a window of 3 on a grid of {x.size}")
    if x.size % 2 == 0:
        b.rounded_up.append(name)
    return b.layer("Pooling", name, x, size=x.size // 2, pool="MAX", kernel_size=3, stride=2)


def average_pool(b: Builder, name: str, x: Top) -> Top:
    """3x3 average pool with stride 1, of the same size.

    At the borders Caffe divides by 9, TensorFlow by the number of pixels under the window. The
    latter is built from stock layers: the same pool over an image of ones gives the share of
    pixels, by whose inverse the result is multiplied.
    """
    window: dict[str, Any] = {"pool": "AVE", "kernel_size": 3, "stride": 1, "pad": 1}
    pooled = b.layer("Pooling", name, x, **window)
    if b.options.average_pool != "tf":
        return pooled
    one = {"type": "constant", "value": 1.0}
    fields = {"shape": [{"dim": [1, 1, x.size, x.size]}], "data_filler": [one]}
    ones = b.layer("DummyData", f"{name}_ones", channels=1, size=x.size, **fields)
    share = b.layer("Pooling", f"{name}_share", ones, **window)
    inverse = b.layer("Power", f"{name}_inverse", share, power=-1.0)
    grid = b.layer("Reshape", f"{name}_grid", inverse, shape={"dim": [x.size, x.size]})
    return b.layer("Scale", f"{name}_exact", pooled, grid, axis=2)


def valid_average_pool(b: Builder, name: str, x: Top, *, kernel: int, stride: int) -> Top:
    """Average pool without padding, whose windows must cover the grid exactly."""
    if x.size < kernel or (x.size - kernel) % stride:
        raise GridError(f"layer {name}: windows of {kernel} every {stride} on a grid of {x.size}")
    size = (x.size - kernel) // stride + 1
    fields = {"pool": "AVE", "kernel_size": kernel, "stride": stride}
    return b.layer("Pooling", name, x, size=size, **fields)


def concat(b: Builder, name: str, *tops: Top) -> Top:
    """Concatenation along the channels."""
    if len({top.size for top in tops}) > 1:
        sizes = ", ".join(f"{top.name} {top.size}" for top in tops)
        raise GridError(f"layer {name} would join different grids: {sizes}")
    return b.layer("Concat", name, *tops, channels=sum(top.channels for top in tops))


def global_average(b: Builder, name: str, x: Top) -> Top:
    """Global average pool."""
    return b.layer("Pooling", name, x, size=1, pool="AVE", global_pooling=True)


def dropout(b: Builder, name: str, x: Top, ratio: float) -> Top:
    """Dropout in place; no layer for the ratio 0."""
    if ratio == 0:
        return x
    return b.layer("Dropout", name, x, in_place=True, dropout_ratio=ratio)


def classifier(b: Builder, name: str, x: Top) -> Top:
    """Inner product with a bias, which may learn faster than the layers before it."""
    num_output, rate = b.options.num_classes, b.options.classifier_lr
    fields: dict[str, Any] = {"param": [{"lr_mult": rate, "decay_mult": 1.0}] * 2 * (rate != 1)}
    fields |= {"weight_filler": b.weight_filler, "bias_filler": {"type": "constant", "value": 0.0}}
    return b.layer(
        "InnerProduct", name, x, channels=num_output, size=0, num_output=num_output, **fields
    )
