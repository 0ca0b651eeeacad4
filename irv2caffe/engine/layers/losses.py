"""Losses and accuracies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

from irv2caffe.engine.layer import Layer, layer_type

if TYPE_CHECKING:
    from torch import Tensor


@layer_type("SoftmaxWithLoss")
def softmax_with_loss(layer: Layer, scores: Tensor, labels: Tensor) -> Tensor:
    """The mean over the batch of -log(softmax) at the label (softmax_loss_layer.cpp)."""
    return functional.cross_entropy(scores.float(), labels.long().flatten())
