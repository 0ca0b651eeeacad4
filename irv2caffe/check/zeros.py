"""Which layers whose weights start at 0 stay there.

A single one learns: what it reads is not 0, and neither is the gradient that comes to it. It stays
where it is if it reads nothing but zeros, or if the gradient is lost behind it: in other weights
of 0, in a ReLU at 0, in a factor of 0. What has learned lets others learn, so that this is asked
again until nothing changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.check.rules.unknown_fields import KNOWN_TYPES

if TYPE_CHECKING:
    from collections.abc import Collection

    from irv2caffe.check.evidence import Layer, PhaseNet, Version

WEIGHTED = {
    "Convolution": "convolution_param",
    "Deconvolution": "convolution_param",
    "InnerProduct": "inner_product_param",
    "Embed": "embed_param",
    "LSTM": "recurrent_param",
    "RNN": "recurrent_param",
}
# What makes zeros of zeros.
_KEEPS_ZEROS = [
    "AbsVal",
    "BatchNorm",
    "Concat",
    "Crop",
    "Dropout",
    "ELU",
    "Eltwise",
    "Flatten",
    "Im2col",
    "LRN",
    "MVN",
    "PReLU",
    "Pooling",
    "ReLU",
    "Reduction",
    "Reshape",
    "SPP",
    "Scale",
    "Slice",
    "Split",
    "TanH",
    "Tile",
]
_NO_GRADIENT = frozenset({"Accuracy", "ArgMax", "Silence", "Threshold", "HDF5Output"})


def stuck(net: PhaseNet, zeros: Collection[int]) -> set[int]:
    """The layers that stay at 0, by their place in the net.

    Args:
        net: a net that learns.
        zeros: places of the layers whose weights start at 0.
    """
    left = set(zeros)
    while left:
        live = _flow_forth(net, left)
        reached = _flow_back(net, left, live)
        learned = {index for index in left if _moves(net, net.layers[index], live, reached)}
        if not learned:
            break
        left -= learned
    return left


def _moves(net: PhaseNet, layer: Layer, live: dict[Version, bool], reached: set[Version]) -> bool:
    if is_frozen(layer):
        return False
    read, written = net.versions(layer)
    return any(live.get(each, True) for each in read) and not reached.isdisjoint(written)


def is_frozen(layer: Layer) -> bool:
    """Whether the lr_mult of its weights is 0."""
    specs = layer.message.param
    return bool(specs) and specs[0].lr_mult == 0


def _flow_forth(net: PhaseNet, zeros: set[int]) -> dict[Version, bool]:
    """Which blobs are not all zeros at the start."""
    live: dict[Version, bool] = {}
    for layer in net.layers:
        read, written = net.versions(layer)
        alive = [live.get(version, True) for version in read]
        live.update(dict.fromkeys(written, _is_live(layer, alive, layer.index in zeros)))
    return live


def _is_live(layer: Layer, alive: list[bool], starts_at_zero: bool) -> bool:
    message = layer.message
    if layer.type in WEIGHTED:
        param = getattr(message, WEIGHTED[layer.type])
        shifts = getattr(param, "bias_term", True) and not is_zero(param.bias_filler)
        return shifts or (any(alive) and not starts_at_zero)
    if layer.type not in _KEEPS_ZEROS:
        return True
    if layer.type == "Scale" and message.scale_param.bias_term:
        return any(alive) or not is_zero(message.scale_param.bias_filler)
    return all(alive) if _multiplies(layer) else any(alive)


def _multiplies(layer: Layer) -> bool:
    """Whether a zero in one of its bottoms is a zero in its top."""
    if layer.type == "Eltwise":
        param = layer.message.eltwise_param
        return bool(param.operation == param.PROD)
    return layer.type == "Scale" and len(layer.message.bottom) > 1


def _flow_back(net: PhaseNet, zeros: set[int], live: dict[Version, bool]) -> set[Version]:
    """The blobs that a gradient comes to at the start."""
    reached: set[Version] = set()
    for layer in reversed(net.layers):
        read, written = net.versions(layer)
        if layer.type in _NO_GRADIENT or layer.index in zeros:
            continue
        if not (_is_loss(layer, net) or not reached.isdisjoint(written)):
            continue
        alive = [live.get(version, True) for version in read]
        if layer.type == "ReLU" and not layer.message.relu_param.negative_slope:
            reached.update(version for version, is_live in zip(read, alive, strict=True) if is_live)
        elif _multiplies(layer):
            others = [all(alive[:place] + alive[place + 1 :]) for place in range(len(alive))]
            reached.update(version for version, passes in zip(read, others, strict=True) if passes)
        else:
            reached.update(read)
    return reached


def _is_loss(layer: Layer, net: PhaseNet) -> bool:
    """Whether it minimises something, as far as one can tell."""
    if layer.type.endswith("Loss") or layer.type == "SoftmaxWithLoss":
        return True
    return may_be_loss(layer, net) or any(layer.message.loss_weight)


def may_be_loss(layer: Layer, net: PhaseNet) -> bool:
    """Whether a layer of a type that Caffe does not have stands where losses stand."""
    tops, bottoms = layer.message.top, layer.message.bottom
    ends = not tops or bool(net.unread_tops(layer))
    return layer.type not in KNOWN_TYPES and bool(bottoms) and ends


def is_zero(filler: Any) -> bool:
    """Whether a filler makes nothing but zeros; one that is not written does."""
    return bool(filler.type == "constant" and filler.value == 0)
