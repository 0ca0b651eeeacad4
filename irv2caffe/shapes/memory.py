"""Memory of a net, blob by blob, as Caffe 1.0 allocates it (32-bit values, engine CAFFE).

Caffe allocates a blob when it is first written. Counted are those that a forward and a backward
pass write:

- data: one array for each top, none for a layer in place; Reshape, Flatten, Split and a Concat or
  Slice of one blob share their bottom's. Data layers keep ``prefetch`` batches.
- gradients: one for each blob between a weight that learns and a loss, and one more for each
  reader of a blob that has several (Caffe's automatic Split); Convolution and Deconvolution make
  one for their bottom in any case.
- BatchNorm: the normalised values and the standard deviations, both as large as the blob, and in
  place a copy of the gradient. Scale in place: a copy of its bottom.
- others: what Dropout, Pooling, LRN, PReLU, MVN, Softmax and the losses keep.
- columns: the unfolded image (im2col) of each convolution larger than 1x1, of one image whatever
  the batch.
- weights and their gradients. A solver keeps one (SGD), two (RMSProp) to three (Adam) more values
  for each weight, which are not counted here.

Vectors over channels are left out, and so is the inside of LSTM and RNN.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from irv2caffe.shapes.layer_types import UNKNOWN, count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from irv2caffe.shapes.infer import LayerInfo, NetShapes

_BYTES = 4
_PREFETCHING = frozenset({"Data", "ImageData", "WindowData"})


@dataclass(frozen=True)
class Memory:
    """Bytes of a layer or of a net; see the module for what is counted where.

    Attributes:
        data: of tops.
        gradients: of tops and of what Caffe's Split layers add.
        batch_norm: what BatchNorm keeps.
        scale: what Scale keeps.
        others: what other layers keep.
        columns: unfolded images of convolutions, independent of the batch.
        weights: of learned values and statistics.
        weight_gradients: the same again, in training.
    """

    data: int = 0
    gradients: int = 0
    batch_norm: int = 0
    scale: int = 0
    others: int = 0
    columns: int = 0
    weights: int = 0
    weight_gradients: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, part.name) for part in fields(self))

    @property
    def of_batch(self) -> int:
        """What grows with the batch."""
        return self.data + self.gradients + self.batch_norm + self.scale + self.others


def add(parts: Iterable[Memory]) -> Memory:
    """The sum of several."""
    parts = list(parts)
    return Memory(**{f.name: sum(getattr(p, f.name) for p in parts) for f in fields(Memory)})


def memory(shapes: NetShapes, *, backward: bool) -> list[Memory]:
    """The memory of each layer.

    Args:
        shapes: of the net in the phase that is to be run.
        backward: with the gradients of a training. A net without a loss is taken as if something
            followed that needs the gradients of its outputs.
    """
    reached = _reached(shapes.layers) if backward else [False] * len(shapes.layers)
    seen = _Seen()
    return [
        _of_layer(layer, is_reached, seen, backward=backward)
        for layer, is_reached in zip(shapes.layers, reached, strict=True)
    ]


@dataclass
class _Seen:
    """Shared weights and blobs with a gradient, in the layers so far."""

    owners: set[str] = field(default_factory=set)
    gradients: set[str] = field(default_factory=set)


def log_bytes(shapes: NetShapes) -> int:
    """The last "Memory required for data" of Caffe's log: all tops, in place ones and splits too.

    It leaves out gradients and what layers keep, and counts blobs that share memory again.
    """
    total = 0
    for layer in shapes.layers:
        for shape, uses in zip(layer.top_shapes, layer.top_uses, strict=True):
            if shape is UNKNOWN:
                continue
            total += count(shape) * (1 + (uses if uses > 1 else 0))
    return _BYTES * total


def _of_layer(layer: LayerInfo, is_reached: bool, seen: _Seen, *, backward: bool) -> Memory:
    if UNKNOWN in (*layer.bottom_shapes, *layer.top_shapes) and layer.partial:
        return Memory()
    kept = _kept(layer, backward=is_reached) + _pooling_kept(layer)
    weights = _weights(layer, seen.owners)
    return Memory(
        data=_BYTES * _data(layer),
        gradients=_BYTES * _gradients(layer, seen) if is_reached else 0,
        batch_norm=_BYTES * kept if layer.type == "BatchNorm" else 0,
        scale=_BYTES * kept if layer.type == "Scale" else 0,
        others=_BYTES * kept if layer.type not in {"BatchNorm", "Scale"} else 0,
        columns=_BYTES * _columns(layer),
        weights=_BYTES * weights,
        weight_gradients=_BYTES * weights if backward else 0,
    )


def _shares(layer: LayerInfo) -> bool:
    """Whether its top is its bottom's memory under another name."""
    single = len(layer.bottoms) == len(layer.tops) == 1
    return layer.type in {"Reshape", "Flatten", "Split"} or (
        layer.type in {"Concat", "Slice"} and single
    )


def _own_tops(layer: LayerInfo) -> Iterable[tuple[int, int]]:
    """Count and uses of the tops that are not a bottom."""
    for place, (shape, uses) in enumerate(zip(layer.top_shapes, layer.top_uses, strict=True)):
        if place >= len(layer.bottoms) or layer.tops[place] != layer.bottoms[place]:
            yield count(shape), uses


def _data(layer: LayerInfo) -> int:
    if _shares(layer):
        return 0
    copies = 1
    if layer.type in _PREFETCHING:
        copies = max(1, layer.proto.data_param.prefetch)
    return copies * sum(size for size, _ in _own_tops(layer))


def _gradients(layer: LayerInfo, seen: _Seen) -> int:
    """Of its own tops, of the splits behind all its tops, and of a bottom that nobody asked for."""
    total = 0
    if layer.type == "Split" or not _shares(layer):
        total += sum(size for size, _ in _own_tops(layer))
    for shape, uses in zip(layer.top_shapes, layer.top_uses, strict=True):
        total += count(shape) * uses if uses > 1 else 0
    if layer.type in {"Convolution", "Deconvolution"}:
        for name, shape in zip(layer.bottoms, layer.bottom_shapes, strict=True):
            total += count(shape) if name not in seen.gradients else 0
    seen.gradients.update(layer.tops)
    return total


def _reached(layers: Sequence[LayerInfo]) -> list[bool]:
    """Which layers a backward pass goes through, as Net::Init decides."""
    needing: set[str] = set()
    needs = []
    for layer in layers:
        specs = layer.proto.param
        learns = any(
            number >= len(specs) or specs[number].lr_mult != 0
            for number in range(len(layer.params))
        )
        need = learns or any(name in needing for name in layer.bottoms)
        needs.append(need)
        (needing.update if need else needing.difference_update)(layer.tops)
    has_loss = any(_is_loss(layer) for layer in layers)
    under: set[str] = set()
    reached = [False] * len(layers)
    for index in reversed(range(len(layers))):
        layer = layers[index]
        if not has_loss or _is_loss(layer) or any(name in under for name in layer.tops):
            under.update(layer.bottoms)
            reached[index] = needs[index]
    return reached


def _is_loss(layer: LayerInfo) -> bool:
    weights = layer.proto.loss_weight
    return any(weights) if weights else layer.type.endswith("Loss")


def _kept(layer: LayerInfo, *, backward: bool) -> int:
    """Values that a layer keeps beside its tops."""
    size = count(layer.bottom_shapes[0]) if layer.bottom_shapes else 0
    times = _KEPT.get(layer.type)
    return size * times(layer, backward) if times else 0


def _batch_norm_kept(layer: LayerInfo, backward: bool) -> int:
    return 3 if layer.in_place and backward else 2


def _lrn_kept(layer: LayerInfo, backward: bool) -> int:
    """Within a channel it is five layers of its own."""
    param = layer.proto.lrn_param
    return (8 if backward else 3) if param.norm_region == param.WITHIN_CHANNEL else 1


def _eltwise_kept(layer: LayerInfo, backward: bool) -> int:  # noqa: ARG001
    """Which bottom the maximum came from."""
    param = layer.proto.eltwise_param
    return int(param.operation == param.MAX)


def _kept_in_place(layer: LayerInfo, backward: bool) -> int:  # noqa: ARG001
    return int(layer.in_place)


def _kept_once(layer: LayerInfo, backward: bool) -> int:  # noqa: ARG001
    return 1


# How many times the size of its bottom each type keeps. Pooling keeps something of its top's size.
_KEPT: dict[str, Callable[[LayerInfo, bool], int]] = {
    "BatchNorm": _batch_norm_kept,
    "ContrastiveLoss": _kept_once,
    "Dropout": lambda layer, backward: int(backward),  # noqa: ARG005
    "Eltwise": _eltwise_kept,
    "EuclideanLoss": _kept_once,
    "InfogainLoss": _kept_once,
    "LRN": _lrn_kept,
    "MVN": _kept_once,
    "PReLU": _kept_in_place,
    "Scale": _kept_in_place,
    "SigmoidCrossEntropyLoss": _kept_once,
    "SoftmaxWithLoss": _kept_once,
}


def _pooling_kept(layer: LayerInfo) -> int:
    """Where the maxima came from, unless that is a top."""
    param = layer.proto.pooling_param
    if layer.type != "Pooling" or param.pool == param.AVE or len(layer.tops) == 2:
        return 0
    return count(layer.top_shapes[0])


def _columns(layer: LayerInfo) -> int:
    if layer.type not in {"Convolution", "Deconvolution"}:
        return 0
    param = layer.proto.convolution_param
    kernel = layer.params[0][2:]
    axis: int = param.axis % len(layer.bottom_shapes[0])
    window_moves = any((*param.pad, param.pad_h, param.pad_w)) or any(
        step not in {0, 1} for step in (*param.stride, param.stride_h, param.stride_w)
    )
    if count(kernel) == 1 and not window_moves:
        return 0
    small = layer.top_shapes[0] if layer.type == "Convolution" else layer.bottom_shapes[0]
    large = layer.bottom_shapes[0] if layer.type == "Convolution" else layer.top_shapes[0]
    return large[axis] * count(kernel) * count(small, axis + 1)


def _weights(layer: LayerInfo, owners: set[str]) -> int:
    """Values of its blobs; those of a name that an earlier layer has are the same memory."""
    total = 0
    for number, shape in enumerate(layer.params):
        name = layer.proto.param[number].name if number < len(layer.proto.param) else ""
        if name and name in owners:
            continue
        owners.add(name)
        total += count(shape)
    return total
