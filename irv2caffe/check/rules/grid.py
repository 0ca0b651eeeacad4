"""Grids: where branches do not meet, and where Caffe's pooling differs from TensorFlow's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.check.evidence import DATA_PARAMS
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, rule
from irv2caffe.check.nets import record_shapes
from irv2caffe.errors import NetError
from irv2caffe.proto import messages
from irv2caffe.shapes.infer import LayerInfo, infer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, Layer, PhaseNet

_SEARCH = 33  # grids of nets with five halvings repeat modulo 32
_MAX_LAYERS_OF_SEARCH = 5000
_POOLING = "pooling_layer.cpp, LayerSetUp and Reshape"


@rule("grid-mismatch", ERROR, "net", f"{_POOLING}; github.com/soeaver/caffe-model issue 25")
def grid_mismatch(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Branches of different sizes meet in Concat or Eltwise."""
    error = net.refused
    layer = next((each for each in net.layers if error and each.name == error.layer), None)
    if error is None or layer is None or layer.type not in {"Concat", "Eltwise"}:
        return
    good = _good_crops(net, evidence)
    yield Hit(
        error.message,
        "Caffe stops when it makes the net. Its pooling rounds up where its convolution rounds "
        "down, so that branches with a stride meet only at some sizes of input",
        f"crop_size: {' or '.join(map(str, good))}" if good else error.hint or "mend the branches",
        layer.at(),
    )


def _good_crops(net: PhaseNet, evidence: Evidence) -> list[int]:
    """The nearest sizes of input below and above at which Caffe makes the net."""
    size = _input_size(net)
    if size is None or len(net.layers) > _MAX_LAYERS_OF_SEARCH:
        return []
    found = []
    for sizes in (range(size - 1, max(0, size - _SEARCH), -1), range(size + 1, size + _SEARCH)):
        good = next((each for each in sizes if _works_at(net, evidence, each)), None)
        found += [] if good is None else [good]
    return found


def _input_size(net: PhaseNet) -> int | None:
    for layer in net.layers:
        if layer.type in DATA_PARAMS and layer.message.transform_param.crop_size:
            return int(layer.message.transform_param.crop_size)
        if layer.type == "Input" and len(layer.message.input_param.shape) == 1:
            dims = layer.message.input_param.shape[0].dim
            if len(dims) == 4 and dims[2] == dims[3]:
                return int(dims[2])
    return None


def _works_at(net: PhaseNet, evidence: Evidence, size: int) -> bool:
    message = messages.NetParameter.FromString(net.message.SerializeToString())
    for layer in message.layer:
        if layer.type in DATA_PARAMS and layer.transform_param.crop_size:
            layer.transform_param.crop_size = size
        elif layer.type == "Input":
            for shape in layer.input_param.shape:
                if len(shape.dim) == 4:
                    shape.dim[2] = shape.dim[3] = size
    try:
        infer(message, net.phase, data_shapes=record_shapes(evidence.databases))
    except NetError:
        return False
    return True


@rule("pool-rounds-up", NOTE, "net", f"{_POOLING}; TensorFlow's VALID padding")
def pool_rounds_up(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A strided pool whose grid is larger in Caffe than in TensorFlow."""
    del evidence
    for layer in net.of_type("Pooling"):
        info = net.info(layer)
        sizes = _rounded(layer.message.pooling_param, info) if info is not None else None
        if sizes is None:
            continue
        family = net.is_tensorflow_style
        yield Hit(
            f"a grid of {sizes[0]} becomes {sizes[1]}; rounded down, as in TensorFlow and PyTorch, "
            f"{sizes[1] - 1}",
            "Caffe's pooling rounds up. The published nets of this family are defined on the "
            "smaller grids: imported weights see others than they were trained for"
            if family
            else "Caffe's pooling rounds up: right for nets born in Caffe, another net than the "
            "one of the same name elsewhere",
            "a crop of 11 or 12 modulo 32, such as 299, where both agree"
            if family
            else "nothing, unless weights go to or come from another framework",
            layer.at("pooling_param"),
            WARNING if family else None,
        )


def _rounded(param: Any, info: LayerInfo) -> tuple[int, int] | None:
    """Size before and after a pool that has to round, at its first such axis."""
    if param.global_pooling or param.round_mode == param.FLOOR or len(info.bottom_shapes[0]) != 4:
        return None
    for axis, letter in ((2, "h"), (3, "w")):
        size = info.bottom_shapes[0][axis]
        window = getattr(param, f"kernel_{letter}") or param.kernel_size
        stride = getattr(param, f"stride_{letter}") or param.stride
        pad = getattr(param, f"pad_{letter}") or param.pad
        if window and stride > 1 and (size + 2 * pad - window) % stride:
            after = info.top_shapes[0][axis]
            if after > (size + 2 * pad - window) // stride + 1:
                return size, after
    return None


@rule("average-pool-padding", NOTE, "net", "pooling_layer.cpp, Forward_cpu; TensorFlow's SAME")
def average_pool_padding(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """An average pool that counts its padding, or the layers that undo it."""
    del evidence
    for layer in net.of_type("Pooling"):
        param = layer.message.pooling_param
        padded = param.pad or param.pad_h or param.pad_w
        if param.pool != param.AVE or not padded or _is_of_ones(net, layer):
            continue
        if any(_is_exact(reader) for reader in net.readers(layer)):
            yield Hit(
                "an average pool as TensorFlow computes it, of six stock layers",
                "logits equal TensorFlow's with imported weights; OpenCV's dnn does not load "
                "DummyData, and toolchains of accelerators may not know it, Reshape or a Scale "
                "with two bottoms",
                "build-net --average-pool caffe where only simple layers will do",
                layer.at(),
            )
        elif net.is_tensorflow_style:
            yield Hit(
                "an average pool that counts its padding",
                "at the border Caffe divides by the whole window, TensorFlow by what lies inside: "
                "two thirds at edges, 4/9 in corners. Harmless when training from scratch; with "
                "imported weights the logits of a random net moved by 0.24",
                "build-net --average-pool tf, if weights are to be imported",
                layer.at("pooling_param"),
            )


def _is_exact(reader: Layer) -> bool:
    return reader.type == "Scale" and len(reader.message.bottom) == 2


def _is_of_ones(net: PhaseNet, layer: Layer) -> bool:
    maker = next(iter(net.sources(layer)), None)
    return maker is not None and maker.type == "DummyData"


@rule("phases-differ", ERROR, "run", "net.cpp, Net::ShareTrainedLayersWith")
def phases_differ(evidence: Evidence) -> Iterator[Hit]:
    """A layer whose weights have another shape in TEST than in TRAIN."""
    trained = {
        info.name: (net, info)
        for net in evidence.nets
        if net.phase == "TRAIN"
        for info in net.infos
    }
    for net in evidence.nets:
        for layer in net.layers if net.phase == "TEST" else ():
            info = net.info(layer)
            if info is None or layer.name not in trained:
                continue
            other = trained[layer.name][1]
            if info.params and other.params and info.params != other.params:
                yield Hit(
                    f"weights of shape {_text(info.params)} in TEST, {_text(other.params)} in "
                    "TRAIN",
                    "Caffe stops at the first test: Cannot share param, shape mismatch",
                    "the same crop_size and the same layers in both phases",
                    layer.at(),
                )


def _text(params: tuple[tuple[int, ...], ...]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in params)
