"""Stems and blocks of Inception-ResNet-v2, as functions from tops to tops.

Figures are those of arXiv 1602.07261v2. Layers have the names of TF-slim's scopes (``Branch_1``,
``Conv2d_0b_1x7``). The paper's blocks A, B and C are TF-slim's block35, block17 and block8, named
after the grids of an input of 299x299.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.net.layers import average_pool, concat, conv, linear, max_pool, relu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.net.layers import Builder
    from irv2caffe.net.spec import Top


def stem_v4(b: Builder, x: Top) -> Top:
    """Fig. 3, the stem of Inception-v4, too: 3x299x299 to 384x35x35.

    The figure lacks the stride of its last convolution and the kernel of its last pool; 2 and 3x3
    follow from the output size.
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


def stem_v3(b: Builder, x: Top) -> Top:
    """TF-slim's stem, which is that of Inception-v3: 3x299x299 to 192x35x35."""
    x = conv(b, "Conv2d_1a_3x3", x, 32, 3, 2)
    x = conv(b, "Conv2d_2a_3x3", x, 32, 3)
    x = conv(b, "Conv2d_2b_3x3", x, 64, 3, pad="same")
    x = max_pool(b, "MaxPool_3a_3x3", x)
    x = conv(b, "Conv2d_3b_1x1", x, 80, 1)
    x = conv(b, "Conv2d_4a_3x3", x, 192, 3)
    return max_pool(b, "MaxPool_5a_3x3", x)


def mixed_5b(b: Builder, name: str, x: Top) -> Top:
    """TF-slim's Inception-A block before the residual blocks: to 320 channels."""
    b0 = conv(b, f"{name}/Branch_0/Conv2d_1x1", x, 96, 1)
    b1 = conv(b, f"{name}/Branch_1/Conv2d_0a_1x1", x, 48, 1)
    b1 = conv(b, f"{name}/Branch_1/Conv2d_0b_5x5", b1, 64, 5, pad="same")
    b2 = conv(b, f"{name}/Branch_2/Conv2d_0a_1x1", x, 64, 1)
    b2 = conv(b, f"{name}/Branch_2/Conv2d_0b_3x3", b2, 96, 3, pad="same")
    b2 = conv(b, f"{name}/Branch_2/Conv2d_0c_3x3", b2, 96, 3, pad="same")
    b3 = average_pool(b, f"{name}/Branch_3/AvgPool_0a_3x3", x)
    b3 = conv(b, f"{name}/Branch_3/Conv2d_0b_1x1", b3, 64, 1)
    return concat(b, name, b0, b1, b2, b3)


def residual(
    b: Builder, name: str, x: Top, branches: Sequence[Top], scale: float | None, *, rectify: bool
) -> Top:
    """Fig. 20: ReLU of the trunk plus ``scale`` times the up-projection of the branches."""
    joined = concat(b, f"{name}/concat", *branches)
    up = linear(b, f"{name}/Conv2d_1x1", joined, x.channels)
    coefficients: dict[str, Any] = {} if scale is None else {"coeff": [1.0, scale]}
    total = b.layer("Eltwise", name, x, up, operation="SUM", **coefficients)
    return relu(b, name, total) if rectify and not b.literal else total


def block35(b: Builder, name: str, x: Top, scale: float | None) -> Top:
    """Fig. 16: 1x1; 1x1, 3x3; 1x1, 3x3, 3x3."""
    b0 = conv(b, f"{name}/Branch_0/Conv2d_1x1", x, 32, 1)
    b1 = conv(b, f"{name}/Branch_1/Conv2d_0a_1x1", x, 32, 1)
    b1 = conv(b, f"{name}/Branch_1/Conv2d_0b_3x3", b1, 32, 3, pad="same")
    b2 = conv(b, f"{name}/Branch_2/Conv2d_0a_1x1", x, 32, 1)
    b2 = conv(b, f"{name}/Branch_2/Conv2d_0b_3x3", b2, 48, 3, pad="same")
    b2 = conv(b, f"{name}/Branch_2/Conv2d_0c_3x3", b2, 64, 3, pad="same")
    return residual(b, name, x, [b0, b1, b2], scale, rectify=True)


def block17(b: Builder, name: str, x: Top, scale: float | None) -> Top:
    """Fig. 17: 1x1; 1x1, 1x7, 7x1."""
    b0 = conv(b, f"{name}/Branch_0/Conv2d_1x1", x, 192, 1)
    b1 = conv(b, f"{name}/Branch_1/Conv2d_0a_1x1", x, 128, 1)
    b1 = conv(b, f"{name}/Branch_1/Conv2d_0b_1x7", b1, 160, (1, 7), pad="same")
    b1 = conv(b, f"{name}/Branch_1/Conv2d_0c_7x1", b1, 192, (7, 1), pad="same")
    return residual(b, name, x, [b0, b1], scale, rectify=True)


def block8(b: Builder, name: str, x: Top, scale: float | None, *, rectify: bool = True) -> Top:
    """Fig. 19: 1x1; 1x1, 1x3, 3x1. TF-slim's last one has no ReLU."""
    b0 = conv(b, f"{name}/Branch_0/Conv2d_1x1", x, 192, 1)
    b1 = conv(b, f"{name}/Branch_1/Conv2d_0a_1x1", x, 192, 1)
    b1 = conv(b, f"{name}/Branch_1/Conv2d_0b_1x3", b1, 224, (1, 3), pad="same")
    b1 = conv(b, f"{name}/Branch_1/Conv2d_0c_3x1", b1, 256, (3, 1), pad="same")
    return residual(b, name, x, [b0, b1], scale, rectify=rectify)


def reduction_a(b: Builder, name: str, x: Top, *, k: int, l: int, m: int, n: int) -> Top:  # noqa: E741
    """Fig. 7, 35x35 to 17x17; ``k l m n`` are as in Table 1."""
    b0 = conv(b, f"{name}/Branch_0/Conv2d_1a_3x3", x, n, 3, 2)
    b1 = conv(b, f"{name}/Branch_1/Conv2d_0a_1x1", x, k, 1)
    b1 = conv(b, f"{name}/Branch_1/Conv2d_0b_3x3", b1, l, 3, pad="same")
    b1 = conv(b, f"{name}/Branch_1/Conv2d_1a_3x3", b1, m, 3, 2)
    return concat(b, name, b0, b1, max_pool(b, f"{name}/Branch_2/MaxPool_1a_3x3", x))


def reduction_b(b: Builder, name: str, x: Top, widths: tuple[int, int, int, int]) -> Top:
    """Fig. 18, 17x17 to 8x8.

    Args:
        b: the net under construction.
        name: of the block.
        x: the trunk.
        widths: filters of the 3x3/2 of the first branch, of the 3x3/2 of the second, and of the
            3x3 and 3x3/2 of the third: 384, 288, 288, 320 in the figure.
    """
    b0 = conv(b, f"{name}/Branch_0/Conv2d_0a_1x1", x, 256, 1)
    b0 = conv(b, f"{name}/Branch_0/Conv2d_1a_3x3", b0, widths[0], 3, 2)
    b1 = conv(b, f"{name}/Branch_1/Conv2d_0a_1x1", x, 256, 1)
    b1 = conv(b, f"{name}/Branch_1/Conv2d_1a_3x3", b1, widths[1], 3, 2)
    b2 = conv(b, f"{name}/Branch_2/Conv2d_0a_1x1", x, 256, 1)
    b2 = conv(b, f"{name}/Branch_2/Conv2d_0b_3x3", b2, widths[2], 3, pad="same")
    b2 = conv(b, f"{name}/Branch_2/Conv2d_1a_3x3", b2, widths[3], 3, 2)
    return concat(b, name, b0, b1, b2, max_pool(b, f"{name}/Branch_3/MaxPool_1a_3x3", x))
