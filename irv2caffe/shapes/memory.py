"""Memory of a net, blob by blob, as Caffe 1.0 allocates it (32-bit values, engine CAFFE).

Caffe allocates a blob when it is first written. These blobs are written in a forward and a
backward pass and counted:

- data: one array for each top, none for a layer in place; Reshape, Flatten, Split and a Concat or
  Slice of one blob share the memory of their bottom. Data layers keep ``prefetch`` batches.
- gradients: one for each blob between a learned weight and a loss, and one more for each reader of
  a blob that has several (Caffe's automatic Split). Convolution and Deconvolution always allocate
  the gradient of their bottom.
- BatchNorm: the normalised values and the standard deviations, both as large as the blob, and in
  place a copy of the gradient. Scale in place: a copy of its bottom.
- others: buffers of Dropout, Pooling, LRN, PReLU, MVN, Softmax and the losses.
- columns: the unfolded image (im2col) of each convolution larger than 1x1; one image, independent
  of the batch.
- weights and their gradients. A solver keeps one (SGD), two (RMSProp) to three (Adam) more values
  for each weight, which are not counted here.

Vectors over channels and the buffers inside LSTM and RNN are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from irv2caffe.shapes.layer_types import UNKNOWN, count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from irv2caffe.shapes.infer import LayerInfo, NetShapes

_BYTES = 4
_PREFETCHING = frozenset({"Data", "ImageData", "WindowData"})
_SHARING_BOTTOM = frozenset({"Reshape", "Flatten", "Split"})


@dataclass(frozen=True)
class Memory:
    """Memory of a layer or a net in bytes; the module says what each part includes.

    Attributes:
        data: of tops.
        gradients: of tops and of Caffe's Split layers.
        batch_norm: buffers of BatchNorm.
        scale: buffers of Scale.
        others: buffers of other layers.
        columns: unfolded images of convolutions, independent of the batch.
        weights: learned values and statistics.
        weight_gradients: the same size, in training.
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
        """The sum of all parts."""
        return sum(getattr(self, part.name) for part in fields(self))

    @property
    def of_batch(self) -> int:
        """The parts that are proportional to the batch size."""
        return self.data + self.gradients + self.batch_norm + self.scale + self.others


def add(parts: Iterable[Memory]) -> Memory:
    """The sum of several parts."""
    parts = list(parts)
    return Memory(**{f.name: sum(getattr(p, f.name) for p in parts) for f in fields(Memory)})


def memory(shapes: NetShapes, *, backward: bool) -> list[Memory]:
    """The memory of each layer.

    Args:
        shapes: of the net in the phase that is run.
        backward: include the gradients of training. A net without a loss is taken as part of a
            larger one that needs the gradients of its outputs.
    """
    reached = _reached(shapes.layers) if backward else [False] * len(shapes.layers)
    owners: set[str] = set()
    with_gradient: set[str] = set()
    result = []
    for layer, is_reached in zip(shapes.layers, reached, strict=True):
        if UNKNOWN in (*layer.bottom_shapes, *layer.top_shapes) and layer.partial:
            result.append(Memory())
            continue
        buffers = _buffers(layer, backward=is_reached)
        weights = _weights(layer, owners)
        used = Memory(
            data=0 if _shares_bottom(layer) else _copies(layer) * _own_tops(layer),
            gradients=_gradients(layer, with_gradient) if is_reached else 0,
            batch_norm=buffers if layer.type == "BatchNorm" else 0,
            scale=buffers if layer.type == "Scale" else 0,
            others=buffers if layer.type not in {"BatchNorm", "Scale"} else 0,
            columns=_columns(layer),
            weights=weights,
            weight_gradients=weights if backward else 0,
        )
        result.append(Memory(**{f.name: _BYTES * getattr(used, f.name) for f in fields(used)}))
    return result


def log_bytes(shapes: NetShapes) -> int:
    """The last "Memory required for data" of Caffe's log: all tops, and those of Split layers.

    It leaves out gradients and buffers, and counts blobs that share memory again.
    """
    return _BYTES * sum(
        count(shape) * (1 + (uses if uses > 1 else 0))
        for layer in shapes.layers
        for shape, uses in zip(layer.top_shapes, layer.top_uses, strict=True)
        if shape is not UNKNOWN
    )


def _shares_bottom(layer: LayerInfo) -> bool:
    """Whether its top is the memory of its bottom under another name."""
    single = len(layer.bottoms) == len(layer.tops) == 1
    return layer.type in _SHARING_BOTTOM or (layer.type in {"Concat", "Slice"} and single)


def _own_tops(layer: LayerInfo) -> int:
    """Values of the tops that are not a bottom in place."""
    return sum(
        count(shape)
        for place, (name, shape) in enumerate(zip(layer.tops, layer.top_shapes, strict=True))
        if layer.bottoms[place : place + 1] != (name,)
    )


def _copies(layer: LayerInfo) -> int:
    """The number of batches that a layer keeps."""
    return max(1, layer.proto.data_param.prefetch) if layer.type in _PREFETCHING else 1


def _gradients(layer: LayerInfo, with_gradient: set[str]) -> int:
    """Values of the gradients of its own tops, of Splits after them, and of a new bottom's."""
    total = 0
    if layer.type == "Split" or not _shares_bottom(layer):
        total += _own_tops(layer)
    for shape, uses in zip(layer.top_shapes, layer.top_uses, strict=True):
        total += count(shape) * uses if uses > 1 else 0
    if layer.type in {"Convolution", "Deconvolution"}:
        for name, shape in zip(layer.bottoms, layer.bottom_shapes, strict=True):
            total += count(shape) if name not in with_gradient else 0
    with_gradient.update(layer.tops)
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
        is_needed = learns or any(name in needing for name in layer.bottoms)
        needs.append(is_needed)
        (needing.update if is_needed else needing.difference_update)(layer.tops)
    has_loss = any(_is_loss(layer) for layer in layers)
    below_loss: set[str] = set()
    reached = [False] * len(layers)
    for index in reversed(range(len(layers))):
        layer = layers[index]
        if not has_loss or _is_loss(layer) or any(name in below_loss for name in layer.tops):
            below_loss.update(layer.bottoms)
            reached[index] = needs[index]
    return reached


def _is_loss(layer: LayerInfo) -> bool:
    weights = layer.proto.loss_weight
    return any(weights) if weights else layer.type.endswith("Loss")


def _lrn_buffers(layer: LayerInfo, backward: bool) -> int:
    """The buffers of LRN; within a channel it is composed of five layers."""
    param = layer.proto.lrn_param
    return (8 if backward else 3) if param.norm_region == param.WITHIN_CHANNEL else 1


# The buffers of a layer type, in sizes of its first bottom. Eltwise keeps the bottom that each
# maximum came from.
_BUFFERS: dict[str, Callable[[LayerInfo, bool], int]] = {
    "BatchNorm": lambda layer, backward: 3 if layer.in_place and backward else 2,
    "Dropout": lambda _, backward: int(backward),
    "Eltwise": lambda layer, _: int((param := layer.proto.eltwise_param).operation == param.MAX),
    "LRN": _lrn_buffers,
    "PReLU": lambda layer, _: int(layer.in_place),
    "Scale": lambda layer, _: int(layer.in_place),
    **dict.fromkeys(
        (
            *("ContrastiveLoss", "EuclideanLoss", "InfogainLoss", "MVN"),
            *("SigmoidCrossEntropyLoss", "SoftmaxWithLoss"),
        ),
        lambda _layer, _backward: 1,
    ),
}


def _buffers(layer: LayerInfo, *, backward: bool) -> int:
    """Values that a layer stores in addition to its tops."""
    if layer.type == "Pooling":  # the positions of the maxima, unless they are a second top
        param = layer.proto.pooling_param
        keeps = param.pool != param.AVE and len(layer.tops) == 1
        return count(layer.top_shapes[0]) if keeps else 0
    times = _BUFFERS.get(layer.type)
    return count(layer.bottom_shapes[0]) * times(layer, backward) if times and layer.bottoms else 0


def _columns(layer: LayerInfo) -> int:
    if layer.type not in {"Convolution", "Deconvolution"} or not layer.params:
        return 0
    param = layer.proto.convolution_param
    kernel = layer.params[0][2:]
    axis: int = param.axis % len(layer.bottom_shapes[0])
    window_moves = any((*param.pad, param.pad_h, param.pad_w)) or any(
        step not in {0, 1} for step in (*param.stride, param.stride_h, param.stride_w)
    )
    if count(kernel) == 1 and not window_moves:
        return 0
    large, small = layer.bottom_shapes[0], layer.top_shapes[0]
    if layer.type == "Deconvolution":
        large, small = small, large
    return large[axis] * count(kernel) * count(small, axis + 1)


def _weights(layer: LayerInfo, owners: set[str]) -> int:
    """Values of its weights, without those that it shares with a layer above."""
    total = 0
    for number, shape in enumerate(layer.params):
        name = layer.proto.param[number].name if number < len(layer.proto.param) else ""
        if name and name in owners:
            continue
        owners.add(name)
        total += count(shape)
    return total
