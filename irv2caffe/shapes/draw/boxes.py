"""The layers of a block as boxes; a convolution with its BatchNorm, Scale and ReLU is one box."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from irv2caffe.shapes.draw.scene import one_line
from irv2caffe.shapes.layer_types import UNKNOWN
from irv2caffe.shapes.stages import FOLLOWERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.shapes.infer import LayerInfo

MAX_NAME = 36
SPACE = 3 * "\u00a0"  # SVG collapses ordinary spaces
_MAX_FOLLOWERS = 6
_MAX_OTHERS = 3
_MAX_REACH = 3000  # rows crossed by all connections of a block together
_KINDS = {
    layer_type: kind
    for kind, types in {
        "conv": ("Convolution", "Deconvolution", "DepthwiseConvolution", "ConvolutionDepthwise"),
        "pool": ("Pooling", "SPP"),
        "dense": ("InnerProduct", "Embed", "LSTM", "RNN"),
        "join": ("Concat", "Eltwise", "Slice"),
        "end": ("Softmax", "Accuracy"),
    }.items()
    for layer_type in types
}
_SHORT = {
    "BatchNorm": "BN",
    "Softmax": "softmax",
    "Concat": "concat",
    "Input": "input",
    "Data": "data",
}


@dataclass
class LayerBox:
    """A layer with its followers; for repeated blocks, the corresponding layers of all blocks.

    Attributes:
        kind: key of its colour.
        template: its label, with ``{}`` for the number of outputs.
        outputs: the number of outputs in each block, or None.
        followers: labels of its BatchNorm, ReLU and the like.
        shapes: its output in each block, without the batch.
        sources: the boxes of the block that it reads; -1 is the block's input.
        name: of its first layer.
        others: names of blobs that it reads and that have no line in the picture.
        places: positions of its layers in the net.
    """

    kind: str
    template: str
    outputs: list[int | None]
    followers: list[str]
    shapes: list[tuple[int, ...]]
    sources: list[int]
    name: str = field(compare=False)
    others: list[str] = field(default_factory=list)
    places: frozenset[int] = field(default=frozenset(), compare=False)

    @property
    def title(self) -> str:
        """Its label with its numbers of outputs: ``3x3 conv, 64`` or ``1x1 conv, 64|96``."""
        numbers = [str(number) for number in self.outputs if number is not None]
        if len(set(numbers)) <= 1:
            return self.template.format(*numbers[:1])
        shown = "|".join(numbers) if len(numbers) <= 5 else f"{numbers[0]} .. {numbers[-1]}"
        return self.template.format(shown)

    @property
    def detail(self) -> str:
        """Its followers, its shape, and the blobs of ``others``."""
        followers = " ".join(self.followers[:_MAX_FOLLOWERS])
        followers += " ..." if len(self.followers) > _MAX_FOLLOWERS else ""
        shape = self.shapes[0] if len(set(self.shapes)) == 1 else ()
        if len({shape[1:] for shape in self.shapes}) == 1:
            shape = shape or self.shapes[0][1:]
        others = " ".join(
            f"{'+' if self.sources or at else 'from'} {name}"
            for at, name in enumerate(self.others[:_MAX_OTHERS])
        )
        others += " ..." if len(self.others) > _MAX_OTHERS else ""
        return SPACE.join(filter(None, (followers, "x".join(map(str, shape)), others)))


def layer_boxes(
    places: Sequence[int],
    layers: Sequence[LayerInfo],
    sources: Sequence[tuple[int, ...]],
    inlet: frozenset[int],
) -> list[LayerBox]:
    """The boxes of a block, in order.

    Args:
        places: positions of the block's layers.
        layers: of the net.
        sources: :attr:`irv2caffe.shapes.infer.NetShapes.sources`.
        inlet: the layers outside of the block that a line is drawn from.
    """
    box_of: dict[int, int] = {}
    boxes: list[LayerBox] = []
    for place in places:
        layer = layers[place]
        read = [
            (source, name)
            for source, name in zip(sources[place], layer.bottoms, strict=True)
            if source in box_of or layers[source].bottoms or len(sources[place]) == 1
        ]
        inside = [
            box_of.get(source, -1) for source, _ in read if source in box_of or source in inlet
        ]
        if layer.type in FOLLOWERS and inside[:1] and _follows(sources[place], layers, box_of):
            box = boxes[inside[0]]
            _add_follower(box, layer)
            box.shapes = [_shape(layer)]
            box.places |= {place}
            box_of[place] = inside[0]
            continue
        box_of[place] = len(boxes)
        others = [name for source, name in read if source not in box_of and source not in inlet]
        template, outputs = _label(layer)
        boxes.append(
            LayerBox(
                _kind(layer),
                template,
                [outputs],
                [],
                [_shape(layer)],
                list(dict.fromkeys(inside)),
                layer.name,
                [short_name(name) for name in dict.fromkeys(others)],
                frozenset({place}),
            )
        )
    return boxes


def last_box(boxes: Sequence[LayerBox]) -> int:
    """The box that produces the block's output."""
    read = {source for box in boxes for source in box.sources}
    ends = [at for at in range(len(boxes)) if at not in read and boxes[at].kind != "end"]
    return ends[-1] if ends else len(boxes) - 1


def has_input(boxes: Sequence[LayerBox]) -> bool:
    """Whether a line leads into the block."""
    return any(-1 in box.sources for box in boxes)


def short_name(name: str, longest: int = MAX_NAME) -> str:
    """A name with its middle left out where it is too long."""
    name = one_line(name)
    return name if len(name) <= longest else f"{name[: longest // 2]}...{name[-longest // 3 :]}"


def simplified(boxes: list[LayerBox]) -> list[LayerBox]:
    """Replaces a block with too many connections by a single box."""
    reach = sum(at - source for at, box in enumerate(boxes) for source in box.sources)
    if reach <= _MAX_REACH:
        return boxes
    return [
        LayerBox(
            "other",
            f"{len(boxes)} layers",
            [None],
            [],
            boxes[-1].shapes,
            [-1] if has_input(boxes) else [],
            boxes[-1].name,
            list(dict.fromkeys(name for box in boxes for name in box.others)),
            frozenset[int]().union(*(box.places for box in boxes)),
        )
    ]


def merged(blocks: Sequence[list[LayerBox]]) -> list[LayerBox]:
    """Merges the boxes of equal blocks into those of one block with the outputs of all."""
    return [
        replace(
            same[0],
            outputs=[number for box in same for number in box.outputs],
            shapes=[shape for box in same for shape in box.shapes],
            places=same[-1].places,
        )
        for same in zip(*blocks, strict=True)
    ]


def _follows(sources: tuple[int, ...], layers: Sequence[LayerInfo], box_of: dict[int, int]) -> bool:
    """Whether a layer reads one layer of the block, as its only reader."""
    source = sources[0]
    return len(sources) == 1 and source in box_of and layers[source].top_uses[0] == 1


def _kind(layer: LayerInfo) -> str:
    if not layer.bottoms:
        return "data"
    if layer.type in FOLLOWERS:
        return "norm"
    return "end" if layer.type.endswith("Loss") else _KINDS.get(layer.type, "other")


def _add_follower(box: LayerBox, layer: LayerInfo) -> None:
    """Adds the label of a follower; a Scale after BatchNorm belongs to it and has none."""
    label = _SHORT.get(layer.type, layer.type)
    if layer.type == "Dropout":
        label = f"dropout {layer.proto.dropout_param.dropout_ratio:.3g}"
    if layer.type != "Scale" or (box.template != "BN" and box.followers[-1:] != ["BN"]):
        box.followers.append(label)


def _shape(layer: LayerInfo) -> tuple[int, ...]:
    return layer.top_shapes[0][1:] if layer.top_shapes else ()


def _label(layer: LayerInfo) -> tuple[str, int | None]:
    """The template of a layer's label, and its number of outputs."""
    proto = layer.proto
    match layer.type:
        case "Convolution" | "Deconvolution" | "DepthwiseConvolution" | "ConvolutionDepthwise":
            return _convolution(layer), proto.convolution_param.num_output
        case "Pooling":
            return _pooling(proto.pooling_param), None
        case "InnerProduct":
            return "fully connected, {}", proto.inner_product_param.num_output
        case "LSTM" | "RNN":
            return f"{layer.type}, {{}}", proto.recurrent_param.num_output
        case "Eltwise":
            return _eltwise(proto.eltwise_param), None
        case "Accuracy":
            return f"accuracy, top {proto.accuracy_param.top_k}", None
        case "SoftmaxWithLoss":
            weight = f"{proto.loss_weight[0]:.3g}" if proto.loss_weight else "1"
            return f"softmax loss{f', weight {weight}' if weight != '1' else ''}", None
        case _:
            kind = (layer.type == "Python" and proto.python_param.layer) or layer.type
            label = short_name(_SHORT.get(kind, kind))
            return label.replace("{", "{{").replace("}", "}}"), None


def _convolution(layer: LayerInfo) -> str:
    param = layer.proto.convolution_param
    sides = layer.params[0][2:] if layer.params else param.kernel_size or [param.kernel_h]
    kernel = "x".join(map(str, sides)) or "1"
    name = "deconv" if layer.type == "Deconvolution" else "conv"
    group = ""
    if param.group > 1:
        shape = layer.bottom_shapes[0]
        channels = shape[param.axis] if shape is not UNKNOWN else 0
        group = " depthwise" if param.group == channels else f" in {param.group} groups"
    dilation = max(param.dilation, default=1)
    dilated = f", dilation {dilation}" if dilation > 1 else ""
    return f"{kernel} {name}{_stride(param)}{group}, {{}}{dilated}"


def _stride(param: Any) -> str:
    steps = [param.stride] if isinstance(param.stride, int) else list(param.stride)
    sides = [param.stride_h, param.stride_w] if param.HasField("stride_h") else steps
    if all(step in {0, 1} for step in sides):
        return ""
    return f" /{sides[0]}" if len(set(sides)) == 1 else f" /{'x'.join(map(str, sides))}"


def _pooling(param: Any) -> str:
    name = {param.MAX: "max pool", param.AVE: "average pool"}.get(param.pool, "stochastic pool")
    if param.global_pooling:
        return f"global {name}"
    height, width = param.kernel_size or param.kernel_h, param.kernel_size or param.kernel_w
    return f"{height}x{width} {name}{_stride(param)}"


def _eltwise(param: Any) -> str:
    if param.operation != param.SUM:
        return "product" if param.operation == param.PROD else "maximum"
    if not param.coeff:
        return "sum"
    if len(param.coeff) == 2 and param.coeff[0] == 1:
        return f"sum, scaled {param.coeff[1]:.3g}"
    return f"sum, {' : '.join(f'{value:.3g}' for value in param.coeff)}"
