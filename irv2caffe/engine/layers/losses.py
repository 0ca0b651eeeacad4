"""Losses; they compute in float32."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from irv2caffe.engine.layer import Layer, Tops, layer_type
from irv2caffe.engine.layers.gradients import GivenSlope, TargetLoss, apply
from irv2caffe.engine.layers.labels import check_not_learned, read_labels
from irv2caffe.errors import NetError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_array, read_binary

if TYPE_CHECKING:
    from torch import Tensor

    from irv2caffe.shapes.infer import LayerInfo

_LOG_FLT_MIN = math.log(torch.finfo(torch.float32).tiny)
_LOG_THRESHOLD = 1e-20  # kLOG_THRESHOLD of infogain_loss_layer.hpp


@layer_type("Softmax")
def softmax(layer: Layer, x: Tensor) -> Tensor:
    """Exponentials over their sum along an axis (softmax_layer.cpp)."""
    return torch.softmax(x.float(), layer.settings.axis)


@layer_type("SoftmaxWithLoss")
def softmax_with_loss(layer: Layer, scores: Tensor, labels: Tensor) -> Tensor:
    """The sum of ``-log(softmax)`` at the labels, divided as ``normalization`` says.

    No probability counts as less than FLT_MIN, so that no item adds more than 87.34; the gradient
    is ``softmax - 1`` at the label even then. Source: softmax_loss_layer.cpp. In TRAIN, the option
    ``label_smoothing`` spreads its share of each target over all classes.
    """
    scores = rows_of_classes(scores, layer.settings.axis)
    classes = scores.shape[1]
    whole, counts = read_labels(layer, labels, scores[:, 0].shape, classes)
    targets = torch.zeros_like(scores, requires_grad=False).scatter_(1, whole[:, None], 1.0)
    if layer.options.label_smoothing and layer.phase == "TRAIN":
        share = layer.options.label_smoothing
        targets = targets * (1 - share) + share / classes
    return _target_loss(layer, scores, targets, counts, _LOG_FLT_MIN)


def rows_of_classes(scores: Tensor, axis: int) -> Tensor:
    """Scores as float32 with three axes: outer, classes, inner."""
    axis %= scores.dim()
    outer = math.prod(scores.shape[:axis])
    return scores.float().reshape(outer, scores.shape[axis], -1)


def _target_loss(
    layer: Layer, scores: Tensor, targets: Tensor, counts: Tensor | None, log_floor: float
) -> Tensor:
    if counts is not None:
        targets = targets * counts[:, None]
    loss = apply(TargetLoss, scores, targets, log_floor)
    inner = scores.shape[2]
    return _normalize(layer, loss, counts, scores.shape[0], inner, _normalization(layer, "VALID"))


def _normalization(layer: Layer, default: str) -> str:
    """The mode; ``normalize`` is its older form (LossParameter in caffe.proto)."""
    settings = layer.settings
    if "normalization" in settings.given:
        return str(settings.normalization)
    if "normalize" in settings.given:
        return "VALID" if settings.normalize else "BATCH_SIZE"
    return default


def _normalize(
    layer: Layer, loss: Tensor, counts: Tensor | None, outer: int, inner: int, mode: str
) -> Tensor:
    """A loss over the number that its normalization says, at least 1 (get_normalizer)."""
    del layer
    if mode == "VALID" and counts is not None:
        return loss / counts.sum().clamp(min=1)
    divisors = {"FULL": outer * inner, "VALID": outer * inner, "BATCH_SIZE": outer, "NONE": 1}
    return loss / max(1, divisors[mode])


def _infogain_unsupported(info: LayerInfo) -> str:
    if info.proto.loss_param.HasField("normalize"):
        return "normalize, which Caffe refuses here: use normalization"
    if len(info.bottoms) == 2:
        _read_matrix(info)
    return ""


def _read_matrix(info: LayerInfo) -> Tensor:
    """The matrix in the file ``source``; fails if it is not there or has another size."""
    param = info.proto.infogain_loss_param
    values = read_array(read_binary(Path(param.source), messages.BlobProto))
    matrix = torch.from_numpy(values.copy())
    classes = info.bottom_shapes[0][param.axis]
    if matrix.numel() != classes**2:
        raise NetError(
            f"layer {info.name!r} ({info.type}): {param.source} has {matrix.numel():,} values, "
            f"not {classes} x {classes}",
            layer=info.name,
        )
    return matrix.float().reshape(classes, classes)


@layer_type("InfogainLoss", unsupported=_infogain_unsupported)
def infogain_loss(
    layer: Layer, scores: Tensor, labels: Tensor, matrix: Tensor | None = None
) -> Tops:
    """The sum of ``-H[label] . log(softmax)``, divided as ``normalization`` says.

    The matrix H comes from a file or the third bottom. No probability counts as less than 1e-20;
    the gradient is ``softmax * sum(H[label]) - H[label]`` even then. A second top has the
    probabilities. Source: infogain_loss_layer.cpp.
    """
    axis = layer.settings.axis
    rows = rows_of_classes(scores, axis)
    classes = rows.shape[1]
    if matrix is None:
        if "matrix" not in layer.constants:
            layer.constants["matrix"] = _read_matrix(layer.info).to(scores.device)
        matrix = layer.constants["matrix"]
    whole, counts = read_labels(layer, labels, rows[:, 0].shape, classes)
    targets = matrix.detach().float().reshape(classes, classes)[whole].movedim(2, 1)
    loss = _target_loss(layer, rows, targets, counts, math.log(_LOG_THRESHOLD))
    if len(layer.info.tops) == 1:
        return loss
    return loss, torch.softmax(scores.detach().float(), axis)


@layer_type("SigmoidCrossEntropyLoss")
def sigmoid_cross_entropy_loss(layer: Layer, scores: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of ``sigmoid(scores)`` and targets (sigmoid_cross_entropy_loss_layer.cpp).

    Divided by the batch size unless ``normalization`` says otherwise.
    """
    check_not_learned(layer, targets)
    scores, targets = scores.float(), targets.detach().float().reshape(scores.shape)
    losses = functional.binary_cross_entropy_with_logits(scores, targets, reduction="none")
    counts = None
    if "ignore_label" in layer.settings.given:
        counts = targets.long() != layer.settings.ignore_label
        losses = torch.where(counts, losses, 0.0)
    inner = scores[0].numel()
    mode = _normalization(layer, "BATCH_SIZE")
    return _normalize(layer, losses.sum(), counts, scores.shape[0], inner, mode)


@layer_type("EuclideanLoss")
def euclidean_loss(layer: Layer, x: Tensor, target: Tensor) -> Tensor:
    """Half the mean over the batch of the squared distances (euclidean_loss_layer.cpp)."""
    difference = x.float() - target.float().reshape(x.shape)
    return difference.square().sum() / x.shape[0] / 2


@layer_type("HingeLoss")
def hinge_loss(layer: Layer, scores: Tensor, labels: Tensor) -> Tensor:
    """The mean over the batch of the margins below 1, or of their squares (hinge_loss_layer.cpp).

    A margin is the score of the label, and the negative score of all other classes.
    """
    rows = scores.float().flatten(1)
    whole, _ = read_labels(layer, labels, rows.shape[:1], rows.shape[1])
    signs = torch.ones_like(rows, requires_grad=False).scatter_(1, whole[:, None], -1.0)
    missing = torch.relu(1 + signs * rows)
    if layer.settings.norm == "L2":
        missing = missing.square()
    return missing.sum() / rows.shape[0]


@layer_type("ContrastiveLoss")
def contrastive_loss(layer: Layer, a: Tensor, b: Tensor, similar: Tensor) -> Tensor:
    """Half the mean of squared distances, or of how far they fall short of the margin.

    Similar pairs count ``d ** 2``, others ``max(margin - d, 0) ** 2``, whose slope divides by
    ``d + 1e-4``, or with ``legacy_version`` ``max(margin - d ** 2, 0)``. Source:
    contrastive_loss_layer.cpp.
    """
    squares = (a.float().flatten(1) - b.float().flatten(1)).square().sum(1)
    if layer.settings.legacy_version:
        others = torch.relu(layer.settings.margin - squares)
    else:
        root = squares.detach().sqrt()
        distance = apply(GivenSlope, squares, root, 0.5 / (root + 1e-4))
        others = torch.relu(layer.settings.margin - distance).square()
    is_similar = similar.detach().reshape(-1).long() != 0
    return torch.where(is_similar, squares, others).sum() / a.shape[0] / 2


@layer_type("MultinomialLogisticLoss")
def multinomial_logistic_loss(layer: Layer, probabilities: Tensor, labels: Tensor) -> Tensor:
    """The mean over the batch of ``-log(probability)`` at the labels, with 1e-20 as the least.

    The slope is -1 / probability even then. Source: multinomial_logistic_loss_layer.cpp.
    """
    rows = probabilities.float().flatten(1)
    whole, _ = read_labels(layer, labels, rows.shape[:1], rows.shape[1])
    true = rows.gather(1, whole[:, None])
    clipped = true.detach().clamp(min=_LOG_THRESHOLD)
    return apply(GivenSlope, true, -clipped.log(), -1 / clipped).sum() / rows.shape[0]
