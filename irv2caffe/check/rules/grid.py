"""Spatial sizes: branches of different sizes, and pooling that differs from TensorFlow's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.check.evidence import DATA_PARAMS, Evidence, Layer, NetEvidence, PhaseNet
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, Hits
from irv2caffe.check.nets import record_shapes
from irv2caffe.check.registry import net_rule, rule
from irv2caffe.errors import NetError
from irv2caffe.proto import messages
from irv2caffe.shapes.infer import LayerInfo, infer

if TYPE_CHECKING:
    from irv2caffe.shapes.layer_types import Shape

_MAX_DISTANCE = 33  # sizes of nets with five halvings repeat modulo 32
_MAX_LAYERS_OF_SEARCH = 5000
_POOLING = "pooling_layer.cpp, LayerSetUp and Reshape"


@net_rule("grid-mismatch", ERROR, f"{_POOLING}; github.com/soeaver/caffe-model issue 25")
def grid_mismatch(evidence: NetEvidence) -> Hits:
    """Branches of different spatial sizes meet in Concat or Eltwise."""
    net, error = evidence.net, evidence.net.refused
    layer = next((each for each in net.layers if error and each.name == error.layer), None)
    if error is None or layer is None or layer.type not in {"Concat", "Eltwise"}:
        return
    good = " or ".join(map(str, _nearest_good_sizes(evidence)))
    yield Hit(
        what=error.message,
        why="Caffe stops when it creates the net. Its pooling rounds up and its convolution down, "
        "so that branches with a stride have equal sizes only at some input sizes",
        fix=f"crop_size: {good}" if good else error.hint or "correct the branches",
        at=layer.at(),
    )


def _nearest_good_sizes(evidence: NetEvidence) -> list[int]:
    """The nearest input sizes below and above that Caffe accepts."""
    size = _input_size(evidence.net)
    if size is None or len(evidence.net.layers) > _MAX_LAYERS_OF_SEARCH:
        return []
    below = range(size - 1, max(0, size - _MAX_DISTANCE), -1)
    above = range(size + 1, size + _MAX_DISTANCE)
    nearest = [
        next((each for each in sizes if _works_at(evidence, each)), None)
        for sizes in (below, above)
    ]
    return [each for each in nearest if each is not None]


def _input_size(net: PhaseNet) -> int | None:
    for layer in net.layers:
        if layer.type in DATA_PARAMS and layer.message.transform_param.crop_size:
            return int(layer.message.transform_param.crop_size)
        if layer.type == "Input" and len(layer.message.input_param.shape) == 1:
            dims = layer.message.input_param.shape[0].dim
            if len(dims) == 4 and dims[2] == dims[3]:
                return int(dims[2])
    return None


def _works_at(evidence: NetEvidence, size: int) -> bool:
    """Whether Caffe accepts the net with another input size."""
    message = messages.NetParameter.FromString(evidence.net.message.SerializeToString())
    for layer in message.layer:
        if layer.type in DATA_PARAMS and layer.transform_param.crop_size:
            layer.transform_param.crop_size = size
        elif layer.type == "Input":
            for shape in layer.input_param.shape:
                if len(shape.dim) == 4:
                    shape.dim[2] = shape.dim[3] = size
    try:
        infer(message, evidence.net.phase, data_shapes=record_shapes(evidence.databases))
    except NetError:
        return False
    return True


@net_rule("pool-rounds-up", NOTE, f"{_POOLING}; TensorFlow's VALID padding")
def pool_rounds_up(evidence: NetEvidence) -> Hits:
    """A pool with a stride whose output is larger in Caffe than in TensorFlow."""
    family = evidence.net.is_tensorflow_style
    for layer in evidence.net.of_type("Pooling"):
        info = evidence.net.info(layer)
        sizes = _rounded_up(layer.message.pooling_param, info) if info is not None else None
        if sizes is None:
            continue
        yield Hit(
            what=f"a grid of {sizes[0]} becomes {sizes[1]}; rounded down, as in TensorFlow and "
            f"PyTorch, {sizes[1] - 1}",
            why="Caffe's pooling rounds up. The published nets of this family are defined on the "
            "smaller grids: imported weights were trained for other grids"
            if family
            else "Caffe's pooling rounds up: right for nets written for Caffe, another net than "
            "the one of the same name in other frameworks",
            fix="a crop of 11 or 12 modulo 32, such as 299, where both agree"
            if family
            else "nothing, unless weights go to or come from another framework",
            at=layer.at("pooling_param"),
            severity=WARNING if family else None,
        )


def _rounded_up(param: Any, info: LayerInfo) -> tuple[int, int] | None:
    """Size before and after a pool, on the first axis that it rounds up."""
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


@net_rule("average-pool-padding", NOTE, "pooling_layer.cpp, Forward_cpu; TensorFlow's SAME")
def average_pool_padding(evidence: NetEvidence) -> Hits:
    """An average pool that counts its padding, or the layers that correct it."""
    net = evidence.net
    for layer in net.of_type("Pooling"):
        param = layer.message.pooling_param
        padded = param.pad or param.pad_h or param.pad_w
        if param.pool != param.AVE or not padded or _reads_constants(net, layer):
            continue
        readers = net.readers(layer)
        if any(each.type == "Scale" and len(each.message.bottom) == 2 for each in readers):
            yield Hit(
                what="an average pool as TensorFlow computes it, of six stock layers",
                why="logits equal TensorFlow's with imported weights; OpenCV's dnn does not load "
                "DummyData, and toolchains of accelerators may not know it, Reshape or a Scale "
                "with two bottoms",
                fix="irv2caffe deploy makes one Scale layer of them, or leaves them out with "
                "--average-pool caffe",
                at=layer.at(),
            )
        elif net.is_tensorflow_style:
            yield Hit(
                what="an average pool that counts its padding",
                why="at the border Caffe divides by the whole window, TensorFlow by the part "
                "inside: two thirds at edges, 4/9 in corners. Harmless when training from scratch; "
                "with imported weights the logits of a random net moved by 0.24",
                fix="build-net --average-pool tf, if weights are to be imported",
                at=layer.at("pooling_param"),
            )


def _reads_constants(net: PhaseNet, layer: Layer) -> bool:
    producer = next(iter(net.sources(layer)), None)
    return producer is not None and producer.type == "DummyData"


@rule("phases-differ", ERROR, "net.cpp, Net::ShareTrainedLayersWith")
def phases_differ(evidence: Evidence) -> Hits:
    """A layer whose weights have another shape in TEST than in TRAIN."""
    trained = {
        info.name: info for net in evidence.nets if net.phase == "TRAIN" for info in net.infos
    }
    for net in (each for each in evidence.nets if each.phase == "TEST"):
        for layer, info in zip(net.layers, net.infos, strict=False):
            other = trained.get(layer.name)
            if other and other.params and info.params and info.params != other.params:
                yield Hit(
                    what=f"weights of shape {shapes_text(info.params)} in TEST, "
                    f"{shapes_text(other.params)} in TRAIN",
                    why="Caffe stops at the first test: Cannot share param, shape mismatch",
                    fix="the same crop_size and the same layers in both phases",
                    at=layer.at(),
                )


def shapes_text(shapes: tuple[Shape, ...]) -> str:
    """Shapes for a message, as in ``8x3x3x3, 8``."""
    return ", ".join("x".join(map(str, shape)) or "1" for shape in shapes)
