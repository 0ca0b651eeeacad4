"""Accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.engine.layer import Layer, Tops, layer_type
from irv2caffe.engine.layers.labels import read_labels
from irv2caffe.engine.layers.losses import rows_of_classes

if TYPE_CHECKING:
    from torch import Tensor


@layer_type("Accuracy")
def accuracy(layer: Layer, scores: Tensor, labels: Tensor) -> Tops:
    """The share of items whose label is among the ``top_k`` scores (accuracy_layer.cpp).

    Scores equal to that of the label count as better, so that ties are mistakes; a NaN at the label
    is never beaten and counts as right. A second top has the share for each class, 0 for classes
    without items. No gradient.
    """
    rows = rows_of_classes(scores.detach(), layer.settings.axis)
    classes = rows.shape[1]
    whole, counts = read_labels(layer, labels.detach(), rows[:, 0].shape, classes)
    better = (rows >= rows.gather(1, whole[:, None])).sum(1) - 1
    right = (better < layer.settings.top_k).float()
    ones = right.new_ones(right.shape) if counts is None else counts.float()
    right = right * ones
    share = right.sum() / ones.sum().clamp(min=1)
    if len(layer.info.tops) == 1:
        return share
    flat = whole.flatten()
    items = ones.new_zeros(classes).index_add_(0, flat, ones.flatten())
    found = ones.new_zeros(classes).index_add_(0, flat, right.flatten())
    return share, found / items.clamp(min=1)
