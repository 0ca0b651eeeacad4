"""The graph of tops and bottoms, with the checks of Caffe's InsertSplits and Net::AppendTop."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, NoReturn

from google.protobuf.descriptor import FieldDescriptor

from irv2caffe.errors import NetError, did_you_mean, first_of
from irv2caffe.shapes.layer_types import SHAPE_RULES

if TYPE_CHECKING:
    from collections.abc import Sequence

Blob = tuple[int, int]
"""A bottom or top of a net: the position of its layer, and its position in the layer."""

_FLOATS = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
_MAX_LISTED = 20


def bottom_sources(layers: Sequence[Any]) -> dict[Blob, Blob]:
    """The top that each bottom of a list of LayerParameters reads.

    A layer in place produces a new top of the same name. Bottoms that no layer above produces are
    left out.
    """
    last: dict[str, Blob] = {}
    sources = {}
    for at, layer in enumerate(layers):
        for place, bottom in enumerate(layer.bottom):
            if bottom in last:
                sources[at, place] = last[bottom]
        last.update((top, (at, place)) for place, top in enumerate(layer.top))
    return sources


class CheckedGraph:
    """The graph of a net's LayerParameters, with the checks of Caffe.

    Attributes:
        layers: the LayerParameters.
        at: the layer that is being checked; after an error, the layer that caused it.
        uses: how often each top is read, as a bottom or as a loss.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = layers
        self.at = 0
        self._sources = bottom_sources(layers)
        self.uses = Counter(self._sources.values())
        for at, layer in enumerate(layers):
            for place, weight in enumerate(layer.loss_weight[: len(layer.top)]):
                self.uses[at, place] += weight != 0

    def check(self, *, allow_unknown: bool = False) -> None:
        """Checks layer types, bottoms, tops and floating-point values.

        Args:
            allow_unknown: accept layer types that Caffe 1.0 does not have.

        Raises:
            NetError: unknown layer types, all at once; a bottom that no layer above produces; a top
                produced twice; a layer in place on a blob that others read; a NaN.
        """
        if not allow_unknown:
            self._check_types()
        for at, layer in enumerate(self.layers):
            self.at = at
            for place in range(len(layer.bottom)):
                if (at, place) not in self._sources:
                    self._fail_at_bottom(layer, place)
        produced: set[str] = set()
        for at, layer in enumerate(self.layers):
            self.at = at
            self._check_tops(layer, produced)
            _check_nan(layer, layer)
            produced.update(layer.top)

    def duplicate_names(self) -> list[str]:
        """A note for each layer name that occurs twice: Caffe loads weights into the first."""
        counts = Counter(layer.name for layer in self.layers)
        return [
            f"{times} layers are called {name!r}: weights are loaded into the first only"
            for name, times in counts.items()
            if times > 1
        ]

    def first_batch(self) -> tuple[str, int | None]:
        """The type of the input layers whose first axis is the batch, and its size.

        Empty if data layers have a batch_size. DummyData is taken for an input only in nets without
        other data layers; beside them it is a constant.
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

    def _check_types(self) -> None:
        unknown = [at for at, layer in enumerate(self.layers) if layer.type not in SHAPE_RULES]
        if not unknown:
            return
        self.at = unknown[0]
        first = self.layers[self.at]
        types = [f"{self.layers[at].type!r} (layer {self.layers[at].name!r})" for at in unknown]
        raise NetError(
            f"unknown layer type{'s' if unknown[1:] else ''}: {first_of(types, _MAX_LISTED)}",
            did_you_mean(first.type, SHAPE_RULES) or "Caffe 1.0 does not have it",
            layer=first.name,
        )

    def _fail_at_bottom(self, layer: Any, place: int) -> NoReturn:
        """Raises the error for a bottom that no layer above produces."""
        bottom = layer.bottom[place]
        above, below = self.layers[: self.at], self.layers[self.at + 1 :]
        producer = next((other.name for other in below if bottom in other.top), None)
        hint = did_you_mean(bottom, dict.fromkeys(top for other in above for top in other.top))
        if producer is not None:
            hint = (
                f"layer {producer!r} below produces it; Caffe runs layers in the order of the file"
            )
        _fail(layer, f"bottom {bottom!r} (index {place}) is not produced by any layer above", hint)

    def _check_tops(self, layer: Any, produced: set[str]) -> None:
        """Refuses a top that exists, unless the layer works in place as its only reader."""
        own: set[str] = set()
        for place, top in enumerate(layer.top):
            in_place = place < len(layer.bottom) and layer.bottom[place] == top
            if top in own or (top in produced and not in_place):
                _fail(layer, f"top {top!r} is produced by another layer already")
            own.add(top)
            if in_place and self.uses[self._sources[self.at, place]] > 1:
                _fail(
                    layer,
                    f"works in place on {top!r}, which other layers read too; Caffe would give "
                    "each of them a copy and then abort",
                    "give it another top",
                )


def _check_nan(layer: Any, message: Any) -> None:
    """Refuses NaN in any field, though Caffe would accept it."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        if field.message_type is not None and field.name != "blobs":
            for inner in values:
                _check_nan(layer, inner)
        elif field.type in _FLOATS and any(math.isnan(number) for number in values):
            _fail(layer, f"{field.name} is not a number")


def _fail(layer: Any, problem: str, hint: str = "") -> NoReturn:
    raise NetError(f"layer {layer.name!r} ({layer.type}): {problem}", hint, layer=layer.name)
