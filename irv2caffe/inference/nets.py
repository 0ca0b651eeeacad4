"""The net for use, made from any net that was trained or deployed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import NetError, first_of
from irv2caffe.proto import messages
from irv2caffe.shapes.graph import bottom_sources
from irv2caffe.shapes.phases import select

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from irv2caffe.shapes.graph import Blob

# Layers that bring images in; DummyData does so only in nets that have none of the others.
_READERS = frozenset({"Data", "HDF5Data", "ImageData", "Input", "MemoryData", "WindowData"})
# Losses of scores that Caffe itself turns into probabilities, or that only compare scores.
_OF_SCORES = frozenset({"SoftmaxWithLoss", "InfogainLoss", "HingeLoss"})
_OF_PROBABILITIES = frozenset({"MultinomialLogisticLoss"})
_OF_NO_CLASSES = {
    "EuclideanLoss": "numbers, not classes",
    "SigmoidCrossEntropyLoss": "several classes of one image at once",
    "ContrastiveLoss": "distances of pairs",
}
_SCORERS = frozenset({"Convolution", "InnerProduct"})
# The fields of a layer that concern training only.
_OF_TRAINING = ("include", "exclude", "loss_weight", "propagate_down")


@dataclass(frozen=True)
class Ends:
    """The ends of a net for use.

    Attributes:
        input: name of the input blob.
        shape: channels, height and width of it; zeros where they are unknown.
        logits: name of the blob before the softmax.
        probabilities: name of the blob after it.
    """

    input: str
    shape: tuple[int, int, int]
    logits: str
    probabilities: str


def inference_net(net: Any, *, shape: tuple[int, int, int] | None = None) -> Any:
    """The net for use: one Input, the layers that the probabilities depend on, a Softmax.

    Works on nets in any format, in phase TEST. Of several classifiers (auxiliary heads) the one
    with the largest loss weight is kept, of equal ones the last.

    Args:
        net: a NetParameter with data layers and losses, or with inputs; it is not changed.
        shape: channels, height and width of the input; None takes those of the file.

    Returns:
        A NetParameter whose input has the batch size 1. Sizes that neither the file nor ``shape``
        gives are 0.

    Raises:
        NetError: no images come in, or no classes come out.
    """
    chosen = select(net, "TEST")
    layers = list(chosen.layer)
    sources = bottom_sources(layers)
    head = _head(layers, sources)
    kept = _ancestors(head.scores, sources)
    reader, top = _reader(layers, kept, sources)
    result = messages.NetParameter(name=chosen.name)
    name = layers[reader].top[top]
    entry = result.layer.add(name=name, type="Input", top=[name])
    entry.input_param.shape.add(dim=(1, *(shape or _written_shape(layers[reader], top))))
    for at in sorted(kept - {reader}):
        result.layer.add().CopyFrom(layers[at])
        for field in _OF_TRAINING:
            result.layer[-1].ClearField(field)
    _add_softmax(result, layers, head)
    return result


def ends_of(net: Any) -> Ends:
    """The ends of a net that :func:`inference_net` made."""
    entry, softmax = net.layer[0], net.layer[-1]
    dims = entry.input_param.shape[0].dim
    shape = (int(dims[1]), int(dims[2]), int(dims[3]))
    return Ends(entry.top[0], shape, softmax.bottom[0], softmax.top[0])


def with_stored_statistics(net: Any) -> tuple[Any, int]:
    """The net with the stored statistics in every BatchNorm, and how many had others.

    With ``use_global_stats: false`` the scores of an image depend on the others in its batch.
    """
    changed = 0
    result = type(net)()
    result.CopyFrom(net)
    for layer in result.layer:
        param = layer.batch_norm_param
        if layer.type == "BatchNorm" and param.HasField("use_global_stats"):
            changed += not param.use_global_stats
            param.ClearField("use_global_stats")
            if not param.ListFields():
                layer.ClearField("batch_norm_param")
    return result, changed


@dataclass(frozen=True)
class _Head:
    """A classifier: the blob of its scores, and its Softmax if the net has one."""

    scores: Blob
    softmax: int | None
    weight: float


def _head(layers: Sequence[Any], sources: dict[Blob, Blob]) -> _Head:
    """The classifier to use."""
    heads = [head for at in range(len(layers)) if (head := _head_at(at, layers, sources))]
    if not heads:
        heads = _bare_heads(layers, sources)
    if not heads:
        raise _no_classes(layers)
    return max(enumerate(heads), key=lambda pair: (pair[1].weight, pair[0]))[1]


def _head_at(at: int, layers: Sequence[Any], sources: dict[Blob, Blob]) -> _Head | None:
    """The classifier that ends in a layer, if it is a Softmax or the loss of one."""
    layer = layers[at]
    if (at, 0) not in sources:
        return None
    source = sources[at, 0]
    if layer.type == "Softmax":
        # One that other layers compute with, as in attention, is no output of the net.
        readers = {layers[reader].type for (reader, _), read in sources.items() if read[0] == at}
        is_end = all(kind.endswith("Loss") or kind in _WATCHERS for kind in readers)
        return _Head(source, at, 1.0) if is_end else None
    weight = layer.loss_weight[0] if layer.loss_weight else 1.0
    if layer.type in _OF_SCORES:
        return _Head(source, None, weight)
    if layer.type in _OF_PROBABILITIES and layers[source[0]].type == "Softmax":
        return _Head(sources[source[0], 0], source[0], weight)
    return None


_WATCHERS = frozenset({"Accuracy", "ArgMax", "HDF5Output", "Silence"})


def _bare_heads(layers: Sequence[Any], sources: dict[Blob, Blob]) -> list[_Head]:
    """The outputs of a net without softmax and loss, if scores come out."""
    read = {blob for (reader, _), blob in sources.items() if layers[reader].type not in _WATCHERS}
    outputs = [
        (at, place)
        for at, layer in enumerate(layers)
        for place in range(len(layer.top))
        if (at, place) not in read and layer.type not in _WATCHERS and layer.bottom
    ]
    return [_Head(blob, None, 1.0) for blob in outputs if _is_scores(blob, layers, sources)]


def _is_scores(blob: Blob, layers: Sequence[Any], sources: dict[Blob, Blob]) -> bool:
    """Whether a blob is what a classifier computes, perhaps pooled or reshaped."""
    at = blob[0]
    while layers[at].type in {"Pooling", "Reshape", "Flatten", "Dropout", "Scale", "Bias"}:
        if (at, 0) not in sources:
            return False
        at = sources[at, 0][0]
    return layers[at].type in _SCORERS


def _no_classes(layers: Sequence[Any]) -> NetError:
    for layer in layers:
        if layer.type in _OF_NO_CLASSES:
            return NetError(
                f"layer {layer.name!r} ({layer.type}): the net gives {_OF_NO_CLASSES[layer.type]}",
                "nets that give one of several classes can be used",
                layer=layer.name,
            )
    return NetError(
        "the net does not end in a classifier: no Softmax, no SoftmaxWithLoss, no scores",
        "give the net that was trained, or its deploy.prototxt",
    )


def _ancestors(scores: Blob, sources: dict[Blob, Blob]) -> set[int]:
    """The layers that a blob depends on."""
    bottoms: dict[int, list[int]] = {}
    for (at, _), (producer, _) in sources.items():
        bottoms.setdefault(at, []).append(producer)
    found, waiting = set(), [scores[0]]
    while waiting:
        at = waiting.pop()
        if at not in found:
            found.add(at)
            waiting += bottoms.get(at, [])
    return found


def _reader(layers: Sequence[Any], kept: set[int], sources: dict[Blob, Blob]) -> Blob:
    """The layer that brings the images in, and the place of their top."""
    python = [
        layers[at].name for at in sorted(kept) if layers[at].type == "Python" and layers[at].bottom
    ]
    if python:
        raise NetError(
            f"layer {python[0]!r} (Python): its code is not in the net, and is not run",
            "only nets of Caffe's own layers can be used",
            layer=python[0],
        )
    without = [at for at in sorted(kept) if not layers[at].bottom]
    readers = [at for at in without if layers[at].type in _READERS or layers[at].type == "Python"]
    readers = readers or [at for at in without if layers[at].type == "DummyData"][:1]
    used = {blob for (at, _), blob in sources.items() if at in kept}
    tops = sorted(blob for blob in used if blob[0] in readers)
    if len(tops) != 1:
        names = [layers[at].top[place] for at, place in tops]
        what = f"takes {len(names)} inputs: {first_of(names, 5)}" if names else "has no input"
        raise NetError(f"the net {what}", "nets that take one image can be used")
    return tops[0]


def _written_shape(layer: Any, top: int) -> tuple[int, int, int]:
    """Channels, height and width as the layer says them; zeros where it does not."""
    dims: Sequence[int]
    if layer.type == "Input":
        shapes = layer.input_param.shape
        dims = shapes[min(top, len(shapes) - 1)].dim if shapes else ()
    elif layer.type == "DummyData":
        dims = _dummy_shape(layer.dummy_data_param, top)
    elif layer.type == "MemoryData":
        param = layer.memory_data_param
        dims = (param.batch_size, param.channels, param.height, param.width)
    else:
        crop = _crop(layer)
        dims = (1, _channels(layer), crop, crop)
    if len(dims) != 4:
        if layer.type != "Input" or dims:
            raise NetError(
                f"layer {layer.name!r} ({layer.type}): its top has {len(dims)} axes, not 4",
                "nets that take images can be used",
                layer=layer.name,
            )
        return 0, 0, 0
    channels, height, width = dims[1:]
    return int(channels), int(height), int(width)


def _dummy_shape(param: Any, top: int) -> Sequence[int]:
    if param.shape:
        return tuple(param.shape[min(top, len(param.shape) - 1)].dim)
    fields = (param.num, param.channels, param.height, param.width)
    return tuple(values[min(top, len(values) - 1)] for values in fields if values)


def _crop(layer: Any) -> int:
    if layer.type == "WindowData":
        return int(layer.window_data_param.crop_size or layer.transform_param.crop_size)
    return int(layer.transform_param.crop_size)


def _channels(layer: Any) -> int:
    """Channels that the transform fixes; 0 where they are those of the records."""
    transform = layer.transform_param
    if layer.type == "ImageData":
        return 3 if layer.image_data_param.is_color else 1
    if transform.force_color:
        return 3
    if transform.force_gray:
        return 1
    return len(transform.mean_value) if len(transform.mean_value) > 1 else 0


def _add_softmax(result: Any, layers: Sequence[Any], head: _Head) -> None:
    at, place = head.scores
    scores = layers[at].top[place]
    if head.softmax is not None:
        softmax = result.layer.add()
        softmax.CopyFrom(layers[head.softmax])
        for field in _OF_TRAINING:
            softmax.ClearField(field)
        if softmax.top[0] != scores:  # not in place, so that the scores can be read
            return
        softmax.top[0] = _free("prob", result)
        return
    name = _free("prob", result)
    result.layer.add(name=name, type="Softmax", bottom=[scores], top=[name])


def _free(name: str, net: Any) -> str:
    """A name that no layer and no top of the net has."""
    taken: Iterable[str] = {word for layer in net.layer for word in (layer.name, *layer.top)}
    while name in taken:
        name += "_"
    return name
