"""The parts of Inception-ResNet-v2 as functions from tops to tops.

Figures are those of arXiv 1602.07261v2. Every convolution but the residual up-projections is
convolution without bias, BatchNorm, Scale, ReLU; every filter is set, since Caffe's default filler
is a constant zero. BatchNorm's three blobs are frozen against the solver (they are statistics,
not weights) and ``use_global_stats`` is left to the phase.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.net.spec import NetSpec, Top

Kernel = int | tuple[int, int]


@dataclass(frozen=True)
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
    """

    net: NetSpec
    width: float
    weight_filler: dict[str, Any]
    bn_eps: float
    bn_fraction: float
    gamma: bool
    residual_bn: bool

    def filters(self, num_output: int) -> int:
        """``num_output`` times the width, at least 1."""
        return max(1, int(num_output * self.width + 0.5))


def conv(
    b: Builder, name: str, x: Top, num_output: int, kernel: Kernel, stride: int = 1, pad: str = ""
) -> Top:
    """Convolution, BatchNorm, Scale, ReLU; ``pad="same"`` keeps the size at stride 1."""
    x = _convolution(b, name, x, b.filters(num_output), kernel, stride, pad, bias=False)
    x = _normalize(b, name, x)
    return relu(b, name, x)


def linear(b: Builder, name: str, x: Top, channels: int) -> Top:
    """The 1x1 up-projection at the end of a residual branch: no ReLU, biased unless BatchNorm'd."""
    x = _convolution(b, name, x, channels, 1, 1, "", bias=not b.residual_bn)
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
    fields: dict[str, Any] = {"num_output": num_output}
    if height == width:
        fields |= {"kernel_size": [height]}
        if pad == "same" and height > 1:
            fields |= {"pad": [height // 2]}
    else:
        fields |= {"kernel_h": height, "kernel_w": width}
        if pad == "same":
            fields |= {"pad_h": height // 2, "pad_w": width // 2}
    if stride != 1:
        fields |= {"stride": [stride]}
    fields |= {"weight_filler": b.weight_filler}
    if bias:  # decays like the weights, as in TF-slim's arg scope
        fields |= {"bias_filler": {"type": "constant", "value": 0.0}}
    else:
        fields |= {"bias_term": False}
    return b.net.layer("Convolution", name, x, channels=num_output, **fields)


def _normalize(b: Builder, name: str, x: Top) -> Top:
    """BatchNorm and the learned shift (and multiplier) after it, both in place."""
    frozen = {"lr_mult": 0.0, "decay_mult": 0.0}
    x = b.net.layer(
        "BatchNorm",
        f"{name}_bn",
        x,
        channels=x.channels,
        in_place=True,
        param=[frozen, frozen, frozen],
        eps=b.bn_eps,
        moving_average_fraction=b.bn_fraction,
    )
    shift = {"lr_mult": 1.0, "decay_mult": 0.0}
    multiplier = shift if b.gamma else frozen
    return b.net.layer(
        "Scale",
        f"{name}_scale",
        x,
        channels=x.channels,
        in_place=True,
        param=[multiplier, shift],
        filler={"type": "constant", "value": 1.0},
        bias_term=True,
        bias_filler={"type": "constant", "value": 0.0},
    )


def relu(b: Builder, name: str, x: Top) -> Top:
    """Rectifies in place."""
    return b.net.layer("ReLU", f"{name}_relu", x, channels=x.channels, in_place=True)


def max_pool(b: Builder, name: str, x: Top) -> Top:
    """3x3 maximum, stride 2, no padding."""
    return b.net.layer("Pooling", name, x, channels=x.channels, pool="MAX", kernel_size=3, stride=2)


def concat(b: Builder, name: str, *tops: Top) -> Top:
    """Joins along the channels."""
    return b.net.layer("Concat", name, *tops, channels=sum(top.channels for top in tops))


def residual(b: Builder, name: str, x: Top, branches: Sequence[Top], scale: float | None) -> Top:
    """The trunk plus ``scale`` times the branches' linear up-projection, then ReLU (Fig. 20)."""
    joined = concat(b, f"{name}_concat", *branches)
    up = linear(b, f"{name}_up_1x1", joined, x.channels)
    coefficients: dict[str, Any] = {} if scale is None else {"coeff": [1.0, scale]}
    total = b.net.layer(
        "Eltwise", name, x, up, channels=x.channels, operation="SUM", **coefficients
    )
    return relu(b, name, total)


def stem(b: Builder, x: Top) -> Top:
    """Fig. 3, the stem shared with Inception-v4: 3x299x299 to 384x35x35.

    The figure leaves out the stride of its last convolution and the kernel of its last pool;
    2 and 3x3 are what its output size asks for.
    """
    x = conv(b, "stem1_3x3_s2", x, 32, 3, 2)
    x = conv(b, "stem2_3x3", x, 32, 3)
    x = conv(b, "stem3_3x3", x, 64, 3, pad="same")
    x = concat(b, "stem4", max_pool(b, "stem4_pool", x), conv(b, "stem4_3x3_s2", x, 96, 3, 2))
    left = conv(b, "stem5_b1_1x1", x, 64, 1)
    left = conv(b, "stem5_b1_3x3", left, 96, 3)
    right = conv(b, "stem5_b2_1x1", x, 64, 1)
    right = conv(b, "stem5_b2_7x1", right, 64, (7, 1), pad="same")
    right = conv(b, "stem5_b2_1x7", right, 64, (1, 7), pad="same")
    right = conv(b, "stem5_b2_3x3", right, 96, 3)
    x = concat(b, "stem5", left, right)
    return concat(b, "stem6", conv(b, "stem6_3x3_s2", x, 192, 3, 2), max_pool(b, "stem6_pool", x))


def block_a(b: Builder, name: str, x: Top, scale: float | None) -> Top:
    """Fig. 16, the 35x35 grid: 1x1; 1x1, 3x3; 1x1, 3x3, 3x3."""
    b1 = conv(b, f"{name}_b1_1x1", x, 32, 1)
    b2 = conv(b, f"{name}_b2_1x1", x, 32, 1)
    b2 = conv(b, f"{name}_b2_3x3", b2, 32, 3, pad="same")
    b3 = conv(b, f"{name}_b3_1x1", x, 32, 1)
    b3 = conv(b, f"{name}_b3_3x3a", b3, 48, 3, pad="same")
    b3 = conv(b, f"{name}_b3_3x3b", b3, 64, 3, pad="same")
    return residual(b, name, x, [b1, b2, b3], scale)


def block_b(b: Builder, name: str, x: Top, scale: float | None) -> Top:
    """Fig. 17, the 17x17 grid: 1x1; 1x1, 1x7, 7x1."""
    b1 = conv(b, f"{name}_b1_1x1", x, 192, 1)
    b2 = conv(b, f"{name}_b2_1x1", x, 128, 1)
    b2 = conv(b, f"{name}_b2_1x7", b2, 160, (1, 7), pad="same")
    b2 = conv(b, f"{name}_b2_7x1", b2, 192, (7, 1), pad="same")
    return residual(b, name, x, [b1, b2], scale)


def block_c(b: Builder, name: str, x: Top, scale: float | None) -> Top:
    """Fig. 19, the 8x8 grid: 1x1; 1x1, 1x3, 3x1."""
    b1 = conv(b, f"{name}_b1_1x1", x, 192, 1)
    b2 = conv(b, f"{name}_b2_1x1", x, 192, 1)
    b2 = conv(b, f"{name}_b2_1x3", b2, 224, (1, 3), pad="same")
    b2 = conv(b, f"{name}_b2_3x1", b2, 256, (3, 1), pad="same")
    return residual(b, name, x, [b1, b2], scale)


def reduction_a(b: Builder, name: str, x: Top, *, k: int, l: int, m: int, n: int) -> Top:  # noqa: E741
    """Fig. 7, 35x35 to 17x17; ``k l m n`` are the paper's letters (its Table 1)."""
    b2 = conv(b, f"{name}_b2_3x3_s2", x, n, 3, 2)
    b3 = conv(b, f"{name}_b3_1x1", x, k, 1)
    b3 = conv(b, f"{name}_b3_3x3", b3, l, 3, pad="same")
    b3 = conv(b, f"{name}_b3_3x3_s2", b3, m, 3, 2)
    return concat(b, name, max_pool(b, f"{name}_pool", x), b2, b3)


def reduction_b(b: Builder, name: str, x: Top, widths: tuple[int, int, int, int]) -> Top:
    """Fig. 18, 17x17 to 8x8.

    Args:
        b: the net under construction.
        name: of the block.
        x: the trunk.
        widths: filters of the second branch's 3x3/2, of the third's 3x3/2, and of the fourth's
            3x3 and 3x3/2. The figure says 384, 288, 288, 320.
    """
    b2 = conv(b, f"{name}_b2_1x1", x, 256, 1)
    b2 = conv(b, f"{name}_b2_3x3_s2", b2, widths[0], 3, 2)
    b3 = conv(b, f"{name}_b3_1x1", x, 256, 1)
    b3 = conv(b, f"{name}_b3_3x3_s2", b3, widths[1], 3, 2)
    b4 = conv(b, f"{name}_b4_1x1", x, 256, 1)
    b4 = conv(b, f"{name}_b4_3x3", b4, widths[2], 3, pad="same")
    b4 = conv(b, f"{name}_b4_3x3_s2", b4, widths[3], 3, 2)
    return concat(b, name, max_pool(b, f"{name}_pool", x), b2, b3, b4)
