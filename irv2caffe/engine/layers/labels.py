"""Labels and other indexes that come as float32 blobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from irv2caffe.errors import InputError, NetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from irv2caffe.engine.layer import Layer


def read_labels(
    layer: Layer, labels: Tensor, shape: Sequence[int], num_classes: int
) -> tuple[Tensor, Tensor | None]:
    """Labels as integers, rounded towards 0 as C casts them, and which of them count.

    Args:
        layer: has ``ignore_label`` among its settings, or no such setting.
        labels: a bottom of the layer.
        shape: of the result.
        num_classes: labels are below it.

    Returns:
        The labels, 0 for those that are ignored, and a mask of those that count; None for all.

    Raises:
        InputError: a label is out of range; only where that can be seen at once.
        NetError: the labels depend on weights.
    """
    check_not_learned(layer, labels)
    whole = labels.detach().reshape(tuple(shape)).long()
    counts = None
    if "ignore_label" in layer.settings.given:
        counts = whole != layer.settings.ignore_label
        whole = torch.where(counts, whole, 0)
    check_range(layer, whole, num_classes)
    return whole, counts


def check_not_learned(layer: Layer, labels: Tensor) -> None:
    """Fails for labels that depend on weights, whose gradient Caffe refuses to compute.

    With ``force_backward``, labels from data want a gradient too; losses give them none
    (AllowForceBackward in loss_layer.hpp).
    """
    if not torch.compiler.is_compiling() and labels.grad_fn is not None:
        raise NetError(
            f"layer {layer.info.name!r} ({layer.info.type}) cannot backpropagate to label inputs",
            "its labels depend on weights: propagate_down: true propagate_down: false",
            layer=layer.info.name,
        )


def check_range(layer: Layer, whole: Tensor, limit: int) -> None:
    """Fails for numbers below 0 or not below a limit, where Caffe reads foreign memory.

    Only on the CPU: looking at values would make the host wait for a GPU, whose kernels stop at
    such numbers by themselves.

    Raises:
        InputError: names the layer and the number.
    """
    if whole.device.type != "cpu" or torch.compiler.is_compiling() or not whole.numel():
        return
    least, most = (int(edge) for edge in whole.aminmax())
    if least < 0 or most >= limit:
        raise InputError(
            f"layer {layer.info.name!r} ({layer.info.type}): label "
            f"{least if least < 0 else most} is out of range",
            f"{layer.info.bottoms[0]!r} has classes 0 to {limit - 1}: check the labels of the "
            "database, or num_output",
        )
