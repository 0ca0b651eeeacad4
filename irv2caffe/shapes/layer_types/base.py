"""A layer as its rule sees it, and the register of the rules."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from irv2caffe.errors import NetError
from irv2caffe.proto.messages import LAYER_TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.proto.positions import Node

Shape = tuple[int, ...]


class _Unknown(Shape):
    """The shape of what layers of other Caffes make; it is this one value, and no scalar."""


UNKNOWN: Shape = _Unknown()
_MAX_AXES = 32
_MAX_COUNT = (1 << 31) - 1
_CONVOLUTIONS = ("DepthwiseConvolution", "ConvolutionDepthwise")  # of forks


def count(shape: Sequence[int], start: int = 0, end: int | None = None) -> int:
    """The product of a shape's sizes from axis ``start`` up to ``end``; 1 for none."""
    return math.prod(shape[start:end])


@dataclass(frozen=True)
class LayerShapes:
    """What a layer makes.

    Attributes:
        tops: the shape of each top.
        params: the shape of each of its blobs, in Caffe's order.
        macs: multiplications with a weight, of the whole batch.
        statistics: the blobs are running statistics, not learned.
        rounded_up: a pooling with a last window that reaches out of its input.
        partial: something of it is not known.
    """

    tops: Sequence[Shape]
    params: Sequence[Shape] = ()
    macs: int = 0
    statistics: bool = False
    rounded_up: bool = False
    partial: bool = False


@dataclass(frozen=True)
class LayerSetup:
    """What a rule is given.

    Attributes:
        proto: the LayerParameter.
        bottoms: shapes of what it reads.
        num_tops: those it names, and those that Caffe adds.
        batch_size: takes the place of the file's where data enter; None leaves it.
        batch_in_file: the first size of the net's first input, which that replaces.
        records: shapes from outside for data layers, one for each top; empty where not given.
        notes: collects what had to be assumed.
        node: the layer as it is written, where its text has more than Caffe 1.0's schema.
    """

    proto: Any
    bottoms: tuple[Shape, ...]
    num_tops: int
    batch_size: int | None = None
    batch_in_file: int | None = None
    records: Sequence[Shape] = ()
    notes: list[str] = field(default_factory=list)
    node: Node | None = None

    @property
    def param(self) -> Any:
        """The message with the settings of this type."""
        name = LAYER_TYPES.get(self.proto.type)
        if name is None and self.proto.type in _CONVOLUTIONS:
            name = "convolution_param"
        return getattr(self.proto, name) if name else None

    def settings(self, *path: str) -> list[str]:
        """What the text says at a path of names that Caffe 1.0 does not have."""
        nodes = [self.node] if self.node is not None else []
        for name in path:
            nodes = [found for node in nodes for found in node.all(name)]
        return [node.value for node in nodes]

    def setting(self, *path_and_default: str) -> str:
        """The last value at a path of names, or the default behind them."""
        *path, default = path_and_default
        return (self.settings(*path) or [default])[-1]

    def whole(self, words: str) -> int:
        """A whole number of the text."""
        self.check(re.fullmatch(r"-?\d{1,9}", words) is not None, f"{words[:40]!r} is no number")
        return int(words)

    def real(self, words: str) -> float:
        """A number of the text."""
        self.check(
            re.fullmatch(r"-?[\d.]{1,20}([eE]-?\d{1,2})?f?", words) is not None
            and words.count(".") <= 1,
            f"{words[:40]!r} is no number",
        )
        return float(words.rstrip("f"))

    def fail(self, problem: str, hint: str = "") -> NoReturn:
        """Raises a NetError that names the layer."""
        layer = self.proto
        raise NetError(f"layer {layer.name!r} ({layer.type}): {problem}", hint, layer=layer.name)

    def check(self, holds: bool, problem: str, hint: str = "") -> None:
        """Fails unless a condition of Caffe's holds."""
        if not holds:
            self.fail(problem, hint)

    def bottom(self, index: int) -> str:
        """A bottom in words: its name and shape."""
        return f"bottom {self.proto.bottom[index]!r} ({shape_text(self.bottoms[index])})"

    def axis(self, value: int, index: int = 0) -> int:
        """An axis of a bottom counted from its start; negative values count from the end."""
        num_axes = len(self.bottoms[index])
        if not -num_axes <= value < num_axes:
            self.fail(f"axis {value} is out of range for {self.bottom(index)}")
        return value % num_axes

    def num_axes(self, wanted: int, index: int = 0) -> None:
        """Fails unless a bottom has so many axes."""
        self.check(
            len(self.bottoms[index]) == wanted, f"{self.bottom(index)} must have {wanted} axes"
        )

    def legacy(self, *indexes: int) -> None:
        """Fails for bottoms of more axes than Blob::num(), channels(), height(), width() can name.

        Caffe stops at these accessors when it makes the layer, or in its first pass.
        """
        for index in indexes or range(len(self.bottoms)):
            self.check(
                len(self.bottoms[index]) <= 4,
                f"{self.bottom(index)} has more axes than the 4 that this layer of Caffe's takes",
                "a Reshape layer can fold axes into one",
            )

    def not_in_place(self) -> None:
        """Fails where the first top is the first bottom."""
        self.check(self.proto.bottom[0] != self.proto.top[0], "does not work in place")

    def verify(self, shape: Sequence[int], what: str) -> None:
        """Fails for a size that no blob can have."""
        if shape is UNKNOWN:
            return
        if len(shape) > _MAX_AXES:
            self.fail(f"{what} has {len(shape)} axes, Caffe's blobs have {_MAX_AXES} at most")
        if any(size < 1 for size in shape):
            self.fail(f"{what} would be empty: {shape_text(shape)}", self._empty_hint())
        if count(shape) > _MAX_COUNT:
            self.fail(
                f"{what} is too large: {shape_text(shape)}; a blob has 2^31 - 1 values at most"
            )

    def _empty_hint(self) -> str:
        if self.bottoms and len(self.bottoms[0]) == 4:
            return "its kernel is larger than its input; is the input of the net too small?"
        return ""


def shape_text(shape: Sequence[int]) -> str:
    """``3x299x299``; a shape without axes is a scalar."""
    if shape is UNKNOWN:
        return "unknown"
    return "x".join(map(str, shape)) if shape else "scalar"


@dataclass(frozen=True)
class ShapeRule:
    """The rule of a layer type.

    Attributes:
        function: from a layer to what it makes.
        bottoms: least and largest number, the latter None for any.
        tops: the same.
        auto_tops: a loss, which gets its top even where none is named.
        blind: it needs no shapes of bottoms.
    """

    function: Callable[[LayerSetup], LayerShapes]
    bottoms: tuple[int, int | None]
    tops: tuple[int, int | None]
    auto_tops: bool = False
    ignores_bottoms: bool = False


SHAPE_RULES: dict[str, ShapeRule] = {}

_Range = int | tuple[int, int | None]
_Function = Callable[[LayerSetup], LayerShapes]


def register(rules: dict[str, ShapeRule]) -> Callable[..., Callable[[_Function], _Function]]:
    """Makes the decorator that registers rules."""

    def rule(
        *types: str,
        bottoms: _Range = 1,
        tops: _Range = 1,
        loss: bool = False,
        ignores_bottoms: bool = False,
    ) -> Callable[[_Function], _Function]:
        """Registers a function for layer types; one number means exactly so many."""

        def decorate(function: _Function) -> _Function:
            for name in types:
                rules[name] = ShapeRule(
                    function, _pair(bottoms), _pair(tops), loss, ignores_bottoms
                )
            return function

        return decorate

    return rule


rule = register(SHAPE_RULES)
rule_of: Callable[[str], ShapeRule | None] = SHAPE_RULES.get


def _pair(value: _Range) -> tuple[int, int | None]:
    return (value, value) if isinstance(value, int) else value


def check_counts(layer: LayerSetup, rule: ShapeRule) -> None:
    """Layer::CheckBlobCounts."""
    for what, number, (least, most) in (
        ("bottom", len(layer.bottoms), rule.bottoms),
        ("top", layer.num_tops, rule.tops),
    ):
        if number >= least and (most is None or number <= most):
            continue
        wanted = (
            str(least) if most == least else f"{least} to {most}" if most else f"{least} or more"
        )
        layer.fail(f"takes {wanted} {what}(s), has {number}")


def check_loss_weights(layer: LayerSetup, rule: ShapeRule) -> None:
    """Layer::SetLossWeights; a loss without any gets one."""
    given = len(layer.proto.loss_weight) or int(rule.auto_tops)
    layer.check(
        given in {0, layer.num_tops},
        f"takes a loss_weight for each of its {layer.num_tops} tops or none, has {given}",
        "a loss with two tops wants two: loss_weight: 1 loss_weight: 0",
    )
