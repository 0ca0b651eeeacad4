"""Input and output of shape rules, and the registry of rules by layer type."""

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
    """The type of :data:`UNKNOWN`, which is compared by identity; an empty shape is a scalar."""


UNKNOWN: Shape = _Unknown()
_MAX_AXES = 32
_MAX_COUNT = (1 << 31) - 1
_CONVOLUTIONS = ("DepthwiseConvolution", "ConvolutionDepthwise")  # of forks


def count(shape: Sequence[int], start: int = 0, end: int | None = None) -> int:
    """The product of a shape's sizes from axis ``start`` up to ``end``; 1 for none."""
    return math.prod(shape[start:end])


def shape_text(shape: Sequence[int]) -> str:
    """``3x299x299``; ``scalar`` for a shape without axes."""
    if shape is UNKNOWN:
        return "unknown"
    return "x".join(map(str, shape)) if shape else "scalar"


@dataclass(frozen=True)
class LayerShapes:
    """The result of a shape rule.

    Attributes:
        tops: the shape of each top.
        params: the shape of each weight blob, in Caffe's order.
        macs: multiply-adds with a weight, for the whole batch.
        statistics: the blobs are running statistics, which are not learned.
        rounded_up: a pooling whose last window reaches beyond its input.
        partial: some of the shapes or weights are unknown.
    """

    tops: Sequence[Shape]
    params: Sequence[Shape] = ()
    macs: int = 0
    statistics: bool = False
    rounded_up: bool = False
    partial: bool = False


@dataclass(frozen=True)
class LayerSetup:
    """The input of a shape rule: a layer and the shapes of its bottoms.

    Attributes:
        proto: the LayerParameter.
        bottoms: the shape of each bottom.
        num_tops: number of tops, including those that Caffe adds.
        batch_size: replaces the batch size in the file; None keeps that.
        batch_in_file: the first size of the net's first input, which ``batch_size`` replaces.
        records: shapes for data layers that the caller gives, one for each top, or none.
        notes: a list to which the rule adds its assumptions.
        node: the layer as written in the file, for fields that Caffe 1.0 does not have.
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
        """The ``*_param`` message of this layer type."""
        name = LAYER_TYPES.get(self.proto.type)
        if name is None and self.proto.type in _CONVOLUTIONS:
            name = "convolution_param"
        return getattr(self.proto, name) if name else None

    def settings(self, *path: str) -> list[str]:
        """The values written at a path of field names, for fields that Caffe 1.0 lacks."""
        nodes = [self.node] if self.node is not None else []
        for name in path:
            nodes = [found for node in nodes for found in node.all(name)]
        return [node.value for node in nodes]

    def setting(self, *path_and_default: str) -> str:
        """The last value written at a path of field names, or the default that follows it."""
        *path, default = path_and_default
        return (self.settings(*path) or [default])[-1]

    def parse_int(self, value: str) -> int:
        """A written value as an integer."""
        self.check(re.fullmatch(r"-?\d{1,9}", value) is not None, f"{value[:40]!r} is not a number")
        return int(value)

    def parse_float(self, value: str) -> float:
        """A written value as a floating-point number."""
        is_number = re.fullmatch(r"-?[\d.]{1,20}([eE]-?\d{1,2})?f?", value) is not None
        self.check(is_number and value.count(".") <= 1, f"{value[:40]!r} is not a number")
        return float(value.rstrip("f"))

    def fail(self, problem: str, hint: str = "") -> NoReturn:
        """Raises a NetError that names the layer."""
        layer = self.proto
        raise NetError(f"layer {layer.name!r} ({layer.type}): {problem}", hint, layer=layer.name)

    def check(self, holds: bool, problem: str, hint: str = "") -> None:
        """Raises a NetError unless a condition holds."""
        if not holds:
            self.fail(problem, hint)

    def check_positive(self, *names: str) -> None:
        """Fails unless fields of ``param`` are positive."""
        for name in names:
            self.check(getattr(self.param, name) > 0, f"{name} must be positive")

    def check_axes(self, number: int, index: int = 0) -> None:
        """Fails unless a bottom has that number of axes."""
        if len(self.bottoms[index]) != number:
            self.fail(f"{self.bottom(index)} must have {number} axes")

    def check_same_shapes(self) -> None:
        """Fails unless all bottoms have the shape of the first."""
        for index, shape in enumerate(self.bottoms):
            if shape != self.bottoms[0]:
                self.fail(f"{self.bottom(0)} and {self.bottom(index)} must have the same shape")

    def check_has_channels(self) -> None:
        """Fails unless the first bottom has two axes or more."""
        self.check(len(self.bottoms[0]) >= 2, f"{self.bottom(0)} must have 2 axes or more")

    def check_legacy(self, *indexes: int) -> None:
        """Fails for bottoms with more axes than Blob::num(), channels(), height(), width() take.

        Caffe stops at these accessors when it makes the layer, or in its first pass.
        """
        for index in indexes or range(len(self.bottoms)):
            if len(self.bottoms[index]) > 4:
                self.fail(
                    f"{self.bottom(index)} has more axes than the 4 that this layer of Caffe's "
                    "takes",
                    "a Reshape layer can fold axes into one",
                )

    def check_not_in_place(self) -> None:
        """Fails where the first top is the first bottom."""
        self.check(self.proto.bottom[0] != self.proto.top[0], "does not work in place")

    def check_blob(self, shape: Sequence[int], what: str) -> None:
        """Fails for a shape that no blob of Caffe's can have."""
        if shape is UNKNOWN:
            return
        if len(shape) > _MAX_AXES:
            self.fail(f"{what} has {len(shape)} axes, Caffe's blobs have {_MAX_AXES} at most")
        if any(size < 1 for size in shape):
            is_image = self.bottoms and len(self.bottoms[0]) == 4
            hint = "its kernel is larger than its input; is the input of the net too small?"
            self.fail(f"{what} would be empty: {shape_text(shape)}", hint if is_image else "")
        if count(shape) > _MAX_COUNT:
            size = shape_text(shape)
            self.fail(f"{what} is too large: {size}; a blob has 2^31 - 1 values at most")

    def bottom(self, index: int) -> str:
        """The name and shape of a bottom, for messages."""
        return f"bottom {self.proto.bottom[index]!r} ({shape_text(self.bottoms[index])})"

    def axis(self, value: int, index: int = 0) -> int:
        """An axis of a bottom as a non-negative number; -1 is the last."""
        num_axes = len(self.bottoms[index])
        if not -num_axes <= value < num_axes:
            self.fail(f"axis {value} is out of range for {self.bottom(index)}")
        return value % num_axes


Range = tuple[int, int | None]
"""The smallest and largest number; None for no limit."""


@dataclass(frozen=True)
class ShapeRule:
    """The shape rule of a layer type.

    Attributes:
        function: returns the shapes.
        bottoms: how many it takes.
        tops: how many it takes.
        auto_tops: a loss, to which Caffe adds missing tops.
        ignores_bottoms: its result does not depend on the shapes of its bottoms.
    """

    function: Callable[[LayerSetup], LayerShapes]
    bottoms: Range
    tops: Range
    auto_tops: bool = False
    ignores_bottoms: bool = False


SHAPE_RULES: dict[str, ShapeRule] = {}

_Function = Callable[[LayerSetup], LayerShapes]


def register(rules: dict[str, ShapeRule]) -> Callable[..., Callable[[_Function], _Function]]:
    """Makes a decorator that registers a function in ``rules``."""

    def rule(
        *types: str,
        bottoms: int | Range = 1,
        tops: int | Range = 1,
        loss: bool = False,
        ignores_bottoms: bool = False,
    ) -> Callable[[_Function], _Function]:
        """Registers a function for layer types; a single number of blobs is exact."""

        def decorate(function: _Function) -> _Function:
            shape_rule = ShapeRule(function, _range(bottoms), _range(tops), loss, ignores_bottoms)
            rules.update(dict.fromkeys(types, shape_rule))
            return function

        return decorate

    return rule


rule = register(SHAPE_RULES)


def _range(number: int | Range) -> Range:
    return (number, number) if isinstance(number, int) else number


def check_counts(layer: LayerSetup, rule: ShapeRule) -> None:
    """Checks the numbers of bottoms and tops, as Layer::CheckBlobCounts does."""
    for what, number, (least, most) in (
        ("bottom", len(layer.bottoms), rule.bottoms),
        ("top", layer.num_tops, rule.tops),
    ):
        if number < least or (most is not None and number > most):
            wanted = f"{least}" if most == least else f"{least} to {most}" if most else ""
            layer.fail(f"takes {wanted or f'{least} or more'} {what}(s), has {number}")


def check_propagate_down(layer: LayerSetup) -> None:
    """Checks the number of ``propagate_down``, as Net::Init does."""
    given = len(layer.proto.propagate_down)
    if given not in {0, len(layer.bottoms)}:
        layer.fail(
            f"takes a propagate_down for each of its {len(layer.bottoms)} bottoms or none, "
            f"has {given}"
        )


def check_loss_weights(layer: LayerSetup, rule: ShapeRule) -> None:
    """Checks the number of loss weights, as Layer::SetLossWeights does; a loss has one."""
    given = len(layer.proto.loss_weight) or int(rule.auto_tops)
    if given not in {0, layer.num_tops}:
        layer.fail(
            f"takes a loss_weight for each of its {layer.num_tops} tops or none, has {given}",
            "a loss with two tops needs two: loss_weight: 1 loss_weight: 0",
        )
