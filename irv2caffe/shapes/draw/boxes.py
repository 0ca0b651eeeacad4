"""The layers of a block as few boxes: a convolution with its BatchNorm, Scale and ReLU is one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.shapes.draw.scene import one_line
from irv2caffe.shapes.layer_types import UNKNOWN
from irv2caffe.shapes.stages import FOLLOWERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.shapes.infer import LayerInfo

LONGEST = 36
SPACE = 3 * "\u00a0"  # which SVG does not fold into one
_MOST_TAIL = 6
_MOST_OTHERS = 3
_MOST_REACH = 3000  # rows that all connections of a block pass, together
_KINDS = {
    "Convolution": "conv",
    "Deconvolution": "conv",
    "DepthwiseConvolution": "conv",
    "ConvolutionDepthwise": "conv",
    "Pooling": "pool",
    "SPP": "pool",
    "InnerProduct": "dense",
    "Embed": "dense",
    "LSTM": "dense",
    "RNN": "dense",
    "Concat": "join",
    "Eltwise": "join",
    "Slice": "join",
    "Softmax": "end",
    "Accuracy": "end",
}
_PLAIN = frozenset({"Input", "Data"})
_SHORT = {"BatchNorm": "BN", "Softmax": "softmax", "Concat": "concat"}


@dataclass
class Op:
    """A box.

    Attributes:
        kind: decides its colour.
        words: what it does, with ``{}`` where the number of outputs stands.
        outputs: that number for each block that is folded into this box, or None.
        tail: its BatchNorm, ReLU and the like.
        shapes: its output in each block, without the batch.
        reads: the ops above it in the block; -1 is what leads into the block.
        name: of its first layer.
        others: names of what it reads from elsewhere, which no line leads to.
        places: of its layers in the net.
    """

    kind: str
    words: str
    outputs: list[int | None]
    tail: list[str]
    shapes: list[tuple[int, ...]]
    reads: list[int]
    name: str = field(compare=False)
    others: list[str] = field(default_factory=list)
    places: frozenset[int] = field(default=frozenset(), compare=False)

    @property
    def title(self) -> str:
        """What it does, with its numbers of outputs: ``3x3 conv, 64`` or ``1x1 conv, 64|96``."""
        numbers = [str(number) for number in self.outputs if number is not None]
        if len(set(numbers)) <= 1:
            return self.words.format(*numbers[:1])
        shown = "|".join(numbers) if len(numbers) <= 5 else f"{numbers[0]} .. {numbers[-1]}"
        return self.words.format(shown)

    @property
    def detail(self) -> str:
        """Its tail, its shape, and what it reads from elsewhere."""
        tail = " ".join(self.tail[:_MOST_TAIL]) + (" ..." if len(self.tail) > _MOST_TAIL else "")
        sizes = {shape[1:] for shape in self.shapes}
        shape = ""
        if len(set(self.shapes)) == 1:
            shape = "x".join(map(str, self.shapes[0]))
        elif len(sizes) == 1 and next(iter(sizes)):
            shape = "x".join(map(str, next(iter(sizes))))
        others = " ".join(
            f"{'+' if self.reads or at else 'from'} {name}"
            for at, name in enumerate(self.others[:_MOST_OTHERS])
        )
        if len(self.others) > _MOST_OTHERS:
            others += " ..."
        return SPACE.join(filter(None, (tail, shape, others)))


def ops_of(
    places: Sequence[int],
    layers: Sequence[LayerInfo],
    read: Sequence[tuple[int, ...]],
    inlet: frozenset[int],
) -> list[Op]:
    """The boxes of a block, in order.

    Args:
        places: of the block's layers.
        layers: of the net.
        read: of :func:`irv2caffe.shapes.stages.producers`.
        inlet: the layers outside to which a line leads from the block.
    """
    op_of: dict[int, int] = {}
    ops: list[Op] = []
    for place in places:
        layer = layers[place]
        sources = [
            (source, name)
            for source, name in zip(read[place], layer.bottoms, strict=True)
            if source in op_of or layers[source].bottoms or len(read[place]) == 1
        ]
        inside = [
            op_of.get(source, -1) for source, _ in sources if source in op_of or source in inlet
        ]
        if layer.type in FOLLOWERS and inside[:1] and _follows(place, read, layers, op_of):
            op = ops[inside[0]]
            _add_tail(op, layer)
            op.shapes = [_shape(layer)]
            op.places |= {place}
            op_of[place] = inside[0]
            continue
        op_of[place] = len(ops)
        others = [name for source, name in sources if source not in op_of and source not in inlet]
        op = _op(layer, list(dict.fromkeys(inside)))
        op.others = [short(name) for name in dict.fromkeys(others)]
        op.places = frozenset({place})
        ops.append(op)
    return ops


def last_op(ops: Sequence[Op]) -> int:
    """The box that leads out of the block."""
    read = {source for op in ops for source in op.reads}
    ends = [at for at in range(len(ops)) if at not in read and ops[at].kind != "end"]
    return ends[-1] if ends else len(ops) - 1


def is_led_into(ops: Sequence[Op]) -> bool:
    """Whether a line leads into the block."""
    return any(-1 in op.reads for op in ops)


def short(name: str, longest: int = LONGEST) -> str:
    """Names of any length must not make boxes of any width."""
    name = one_line(name)
    return name if len(name) <= longest else f"{name[: longest // 2]}...{name[-longest // 3 :]}"


def condensed(ops: list[Op]) -> list[Op]:
    """A block too tangled for a picture as one box."""
    reach = sum(at - source for at, op in enumerate(ops) for source in op.reads)
    if reach <= _MOST_REACH:
        return ops
    last = ops[-1]
    others = list(dict.fromkeys(name for op in ops for name in op.others))
    reads = [-1] if is_led_into(ops) else []
    words = f"{len(ops)} layers"
    places = frozenset[int]().union(*(op.places for op in ops))
    return [Op("other", words, [None], [], last.shapes, reads, last.name, others, places)]


def _follows(
    place: int,
    read: Sequence[tuple[int, ...]],
    layers: Sequence[LayerInfo],
    op_of: dict[int, int],
) -> bool:
    """Whether it is the only reader of a layer of the block, and reads nothing else."""
    source = read[place][0]
    return len(read[place]) == 1 and source in op_of and layers[source].top_uses[0] == 1


def _op(layer: LayerInfo, reads: list[int]) -> Op:
    words, outputs = _words(layer)
    kind = _KINDS.get(layer.type, "other")
    if not layer.bottoms:
        kind = "data"
    elif layer.type in FOLLOWERS:
        kind = "norm"
    elif layer.type.endswith("Loss"):
        kind = "end"
    return Op(kind, words, [outputs], [], [_shape(layer)], reads, layer.name)


def _add_tail(op: Op, layer: LayerInfo) -> None:
    """A Scale after BatchNorm is the other half of it."""
    words = _SHORT.get(layer.type, layer.type)
    if layer.type == "Dropout":
        words = f"dropout {layer.proto.dropout_param.dropout_ratio:.3g}"
    if layer.type == "Scale" and (op.words == "BN" or op.tail[-1:] == ["BN"]):
        return
    op.tail.append(words)


def _shape(layer: LayerInfo) -> tuple[int, ...]:
    return layer.top_shapes[0][1:] if layer.top_shapes else ()


def _words(layer: LayerInfo) -> tuple[str, int | None]:
    """What a layer does, and its number of outputs."""
    proto = layer.proto
    match layer.type:
        case "Convolution" | "Deconvolution" | "DepthwiseConvolution" | "ConvolutionDepthwise":
            return _convolution(layer), proto.convolution_param.num_output
        case "Pooling":
            return _pooling(layer), None
        case "InnerProduct":
            return "fully connected, {}", proto.inner_product_param.num_output
        case "LSTM" | "RNN":
            return f"{layer.type}, {{}}", proto.recurrent_param.num_output
        case "Eltwise":
            return _eltwise(proto.eltwise_param), None
        case "Accuracy":
            return f"accuracy, top {proto.accuracy_param.top_k}", None
        case "SoftmaxWithLoss":
            weight = f", weight {proto.loss_weight[0]:.3g}" if proto.loss_weight else ""
            return f"softmax loss{weight if weight != ', weight 1' else ''}", None
        case _:
            kind = layer.type.lower() if layer.type in _PLAIN else layer.type
            kind = (kind == "Python" and proto.python_param.layer) or kind
            return _verbatim(_SHORT.get(kind, kind)), None


def _verbatim(word: str) -> str:
    """A word of the file in a template."""
    return short(word).replace("{", "{{").replace("}", "}}")


def _convolution(layer: LayerInfo) -> str:
    param = layer.proto.convolution_param
    sides = layer.params[0][2:] if layer.params else param.kernel_size or [param.kernel_h]
    kernel = "x".join(map(str, sides)) or "1"
    stride = _stride(param)
    name = "deconv" if layer.type == "Deconvolution" else "conv"
    group = ""
    if param.group > 1:
        shape = layer.bottom_shapes[0]
        channels = shape[param.axis] if shape is not UNKNOWN else 0
        group = " depthwise" if param.group == channels else f" in {param.group} groups"
    dilation = max(param.dilation, default=1)
    dilated = f", dilation {dilation}" if dilation > 1 else ""
    return f"{kernel} {name}{stride}{group}, {{}}{dilated}"


def _stride(param: Any) -> str:
    steps = param.stride if not isinstance(param.stride, int) else [param.stride]
    sides = [param.stride_h, param.stride_w] if param.HasField("stride_h") else list(steps)
    if all(step in {0, 1} for step in sides):
        return ""
    return f" /{sides[0]}" if len(set(sides)) == 1 else f" /{'x'.join(map(str, sides))}"


def _pooling(layer: LayerInfo) -> str:
    param = layer.proto.pooling_param
    name = {param.MAX: "max pool", param.AVE: "average pool"}.get(param.pool, "stochastic pool")
    if param.global_pooling:
        return f"global {name}"
    height = param.kernel_size or param.kernel_h
    width = param.kernel_size or param.kernel_w
    return f"{height}x{width} {name}{_stride(param)}"


def _eltwise(param: Any) -> str:
    if param.operation != param.SUM:
        return "product" if param.operation == param.PROD else "maximum"
    if not param.coeff:
        return "sum"
    if len(param.coeff) == 2 and param.coeff[0] == 1:
        return f"sum, scaled {param.coeff[1]:.3g}"
    return f"sum, {' : '.join(f'{value:.3g}' for value in param.coeff)}"


def merged(several: Sequence[list[Op]]) -> list[Op]:
    """The boxes of equally built blocks as one set that names all their numbers."""
    result = []
    for same in zip(*several, strict=True):
        first = same[0]
        result.append(
            Op(
                first.kind,
                first.words,
                [number for op in same for number in op.outputs],
                first.tail,
                [shape for op in same for shape in op.shapes],
                first.reads,
                first.name,
                first.others,
                same[-1].places,
            )
        )
    return result
