"""Finds layers whose weights start at 0 and never change.

A layer with weights of 0 learns if its bottom is not all zeros and a gradient reaches its top. The
gradient is lost in other weights of 0, in a ReLU at 0 and in a factor of 0. Layers that learn let
others learn, so that the search is repeated until nothing changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.check.evidence import KNOWN_TYPES, Layer, PhaseNet, Top

if TYPE_CHECKING:
    from collections.abc import Collection

WEIGHTED = {
    "Convolution": "convolution_param",
    "Deconvolution": "convolution_param",
    "InnerProduct": "inner_product_param",
    "Embed": "embed_param",
    "LSTM": "recurrent_param",
    "RNN": "recurrent_param",
}
# Types whose tops are all zeros if their bottoms are.
_KEEPS_ZEROS = frozenset(
    (
        *("AbsVal", "BatchNorm", "Concat", "Crop", "Dropout", "ELU", "Eltwise", "Flatten"),
        *("Im2col", "LRN", "MVN", "PReLU", "Pooling", "ReLU", "Reduction", "Reshape", "SPP"),
        *("Scale", "Slice", "Split", "TanH", "Tile"),
    )
)
_NO_GRADIENT = frozenset({"Accuracy", "ArgMax", "Silence", "Threshold", "HDF5Output"})
# Whether each top holds nonzero values at the start; None is a bottom that no layer produces.
_NonZero = dict["Top | None", bool]


def layers_that_stay_at_zero(net: PhaseNet, zeros: Collection[int]) -> set[int]:
    """The layers whose weights stay at 0, by their index.

    Args:
        net: a net in TRAIN.
        zeros: indices of the layers whose weights start at 0.
    """
    left = set(zeros)
    while left:
        nonzero = _nonzero_tops(net, left)
        reached = _tops_with_gradient(net, left, nonzero)
        learned = {i for i in left if _learns(net, net.layers[i], nonzero, reached)}
        if not learned:
            break
        left -= learned
    return left


def _learns(net: PhaseNet, layer: Layer, nonzero: _NonZero, reached: set[Top | None]) -> bool:
    if is_frozen(layer):
        return False
    is_fed = any(nonzero.get(top, True) for top in net.tops_read(layer))
    return is_fed and not reached.isdisjoint(_tops(layer))


def _tops(layer: Layer) -> list[Top]:
    return [(layer.index, place) for place in range(len(layer.message.top))]


def is_frozen(layer: Layer) -> bool:
    """Whether the lr_mult of its weights is 0."""
    specs = layer.message.param
    return bool(specs) and specs[0].lr_mult == 0


def _nonzero_tops(net: PhaseNet, zeros: set[int]) -> _NonZero:
    nonzero: _NonZero = {}
    for layer in net.layers:
        bottoms = [nonzero.get(top, True) for top in net.tops_read(layer)]
        is_nonzero = _is_nonzero(layer, bottoms, layer.index in zeros)
        nonzero.update(dict.fromkeys(_tops(layer), is_nonzero))
    return nonzero


def _is_nonzero(layer: Layer, bottoms: list[bool], starts_at_zero: bool) -> bool:
    """Whether the tops of a layer hold nonzero values, given which of its bottoms do."""
    message = layer.message
    if layer.type in WEIGHTED:
        param = getattr(message, WEIGHTED[layer.type])
        adds_bias = getattr(param, "bias_term", True) and not is_zero(param.bias_filler)
        return adds_bias or (any(bottoms) and not starts_at_zero)
    if layer.type not in _KEEPS_ZEROS:
        return True
    if layer.type == "Scale" and message.scale_param.bias_term:
        return any(bottoms) or not is_zero(message.scale_param.bias_filler)
    return all(bottoms) if _multiplies_bottoms(layer) else any(bottoms)


def _multiplies_bottoms(layer: Layer) -> bool:
    if layer.type == "Eltwise":
        param = layer.message.eltwise_param
        return bool(param.operation == param.PROD)
    return layer.type == "Scale" and len(layer.message.bottom) > 1


def _tops_with_gradient(net: PhaseNet, zeros: set[int], nonzero: _NonZero) -> set[Top | None]:
    """The tops that a gradient reaches at the start."""
    reached: set[Top | None] = set()
    for layer in reversed(net.layers):
        if layer.type in _NO_GRADIENT or layer.index in zeros:
            continue
        if not (_is_loss(layer, net) or not reached.isdisjoint(_tops(layer))):
            continue
        read = net.tops_read(layer)
        bottoms = [nonzero.get(top, True) for top in read]
        if layer.type == "ReLU" and not layer.message.relu_param.negative_slope:
            passes = bottoms
        elif _multiplies_bottoms(layer):
            passes = [all(bottoms[:place] + bottoms[place + 1 :]) for place in range(len(bottoms))]
        else:
            passes = [True] * len(read)
        reached.update(top for top, passed in zip(read, passes, strict=True) if passed)
    return reached


def _is_loss(layer: Layer, net: PhaseNet) -> bool:
    is_known = layer.type.endswith("Loss") or any(layer.message.loss_weight)
    return is_known or may_be_loss(layer, net)


def may_be_loss(layer: Layer, net: PhaseNet) -> bool:
    """Whether a layer of an unknown type is at the end of the net, as losses are."""
    tops, bottoms = layer.message.top, layer.message.bottom
    is_end = not tops or bool(net.unread_tops(layer))
    return layer.type not in KNOWN_TYPES and bool(bottoms) and is_end


def is_zero(filler: Any) -> bool:
    """Whether a filler only writes zeros, as Caffe's default does."""
    return bool(filler.type == "constant" and filler.value == 0)
