"""Who reads what in a net of one phase, as Caffe's InsertSplits and Net::AppendTop see it."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, NoReturn

from google.protobuf.descriptor import FieldDescriptor

from irv2caffe.errors import NetError, did_you_mean, first_of
from irv2caffe.shapes.layer_types import SHAPE_RULES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FLOATS = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
_MOST_LISTED = 20


def bottom_sources(layers: Sequence[Any]) -> dict[tuple[int, int], tuple[int, int]]:
    """The top (layer, place) that each bottom (layer, place) reads.

    A layer that works in place makes a new top of the same name. Bottoms that no layer above makes
    are left out.
    """
    last: dict[str, tuple[int, int]] = {}
    sources = {}
    for at, layer in enumerate(layers):
        for place, bottom in enumerate(layer.bottom):
            if bottom in last:
                sources[at, place] = last[bottom]
        for place, top in enumerate(layer.top):
            last[top] = (at, place)
    return sources


class Wiring:
    """The connections of a list of layers.

    Attributes:
        at: the layer that is looked at; where an error was found.
        uses: how often each top (layer, place) is read, as a bottom or as a loss.
        sources: the top that each bottom (layer, place) reads.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = layers
        self.at = 0
        self.uses: Counter[tuple[int, int]] = Counter()
        self.sources: dict[tuple[int, int], tuple[int, int]] = {}

    def check(self, *, foreign: bool = False) -> None:
        """Follows all bottoms to the tops they read.

        Raises:
            NetError: unknown types, all at once; a bottom that is not there; a top made twice; a
                layer that works in place on what others read; a value that is not a number.
                With ``foreign`` types may be unknown.
        """
        if not foreign:
            self._refuse_unknown()
        self._connect()
        made: set[str] = set()
        for at, layer in enumerate(self.layers):
            self.at = at
            self._check_tops(layer, made)
            _refuse_nan(layer, layer)
            made.update(layer.top)

    def equal_names(self) -> list[str]:
        """Caffe takes equal names, but loads weights into the first of them only."""
        counts = Counter(layer.name for layer in self.layers)
        return [
            f"{times} layers are called {name!r}: weights are loaded into the first only"
            for name, times in counts.items()
            if times > 1
        ]

    def first_batch(self) -> tuple[str, int | None]:
        """The type of the layers that say the batch, and the one in the file.

        Empty where data layers say it themselves; beside other sources DummyData is a constant.
        """
        sources = {layer.type: layer for layer in reversed(self.layers) if not layer.bottom}
        if "Input" in sources:
            shapes = [shape.dim for shape in sources["Input"].input_param.shape]
            return "Input", shapes[0][0] if shapes and shapes[0] else None
        if set(sources) <= {"DummyData", "Parameter"} and "DummyData" in sources:
            param = sources["DummyData"].dummy_data_param
            shapes = [shape.dim for shape in param.shape] or [param.num]
            return "DummyData", shapes[0][0] if shapes[0] else None
        return "", None

    def _refuse_unknown(self) -> None:
        unknown = [
            (at, layer) for at, layer in enumerate(self.layers) if layer.type not in SHAPE_RULES
        ]
        if not unknown:
            return
        self.at, first = unknown[0]
        types = [f"{layer.type!r} (layer {layer.name!r})" for _, layer in unknown]
        listed = first_of(types, _MOST_LISTED)
        raise NetError(
            f"unknown layer type{'s' if len(unknown) > 1 else ''}: {listed}",
            did_you_mean(first.type, SHAPE_RULES) or "Caffe 1.0 does not have it",
            layer=first.name,
        )

    def _connect(self) -> None:
        self.sources = bottom_sources(self.layers)
        for at, layer in enumerate(self.layers):
            self.at = at
            for place in range(len(layer.bottom)):
                if (at, place) not in self.sources:
                    known = dict.fromkeys(top for above in self.layers[:at] for top in above.top)
                    _dangling(layer, place, known, self.layers[at + 1 :])
                self.uses[self.sources[at, place]] += 1
            for place, weight in enumerate(layer.loss_weight[: len(layer.top)]):
                self.uses[at, place] += weight != 0

    def _check_tops(self, layer: Any, made: set[str]) -> None:
        """A name is taken, unless the layer works in place on a blob that nobody else reads."""
        seen: set[str] = set()
        for place, top in enumerate(layer.top):
            in_place = place < len(layer.bottom) and layer.bottom[place] == top
            if top in seen or (top in made and not in_place):
                raise NetError(
                    f"layer {layer.name!r} ({layer.type}): top {top!r} is produced by another "
                    "layer already",
                    layer=layer.name,
                )
            if in_place and self.uses[self.sources[self.at, place]] > 1:
                raise NetError(
                    f"layer {layer.name!r} ({layer.type}): works in place on {top!r}, which other "
                    "layers read too; Caffe would give each of them a copy and then abort",
                    "let it write another top",
                    layer=layer.name,
                )
            seen.add(top)


def _refuse_nan(layer: Any, message: Any) -> None:
    """A value that is not a number is nobody's intention, though Caffe would compute with it."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        if field.message_type is not None and field.name != "blobs":
            for inner in values:
                _refuse_nan(layer, inner)
        elif field.type in _FLOATS and any(math.isnan(number) for number in values):
            raise NetError(
                f"layer {layer.name!r} ({layer.type}): {field.name} is not a number",
                layer=layer.name,
            )


def _dangling(
    layer: Any, place: int, known: Mapping[str, object], later: Sequence[Any]
) -> NoReturn:
    """A bottom that nobody made; says whether it comes later or is misspelt."""
    bottom = layer.bottom[place]
    maker = next((other.name for other in later if bottom in other.top), None)
    hint = did_you_mean(bottom, known)
    if maker is not None:
        hint = f"layer {maker!r} makes it, but stands below; Caffe takes layers in their order"
    raise NetError(
        f"layer {layer.name!r} ({layer.type}): bottom {bottom!r} (index {place}) is made by no "
        "layer above",
        hint,
        layer=layer.name,
    )
