"""Inserts the Split layers that Caffe adds where a blob is read more than once (insert_splits.cpp).

The engine needs none to run a net, but they name outputs and are part of Caffe's files.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.proto import messages
from irv2caffe.shapes.graph import Blob, bottom_sources

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class SplitLayers:
    """The layers of a net with Caffe's Split layers.

    Attributes:
        layers: copies of the LayerParameters, and the Split layers.
        positions: of each among the given layers; None for a Split layer that was inserted.
        origin: the blob behind each top of an inserted Split layer.
    """

    layers: list[Any]
    positions: list[int | None]
    origin: dict[str, str]

    def outputs(self) -> dict[str, str]:
        """The tops that no layer reads, in alphabetical order, with the blob that each one is."""
        unread: set[str] = set()
        for layer in self.layers:
            unread.difference_update(layer.bottom)
            unread.update(layer.top)
        return {name: self.origin.get(name, name) for name in sorted(unread)}


def insert_splits(layers: Sequence[Any]) -> SplitLayers:
    """Inserts a Split layer for each top with several uses; a loss weight is a use, the first."""
    sources = bottom_sources(layers)
    uses = Counter(sources.values())
    weights = {
        (at, place): weight
        for at, layer in enumerate(layers)
        for place, weight in enumerate(layer.loss_weight[: len(layer.top)])
        if weight
    }
    uses.update(weights.keys())
    taken: Counter[Blob] = Counter(weights.keys())
    result = SplitLayers([], [], {})
    for at, layer in enumerate(layers):
        copy = messages.LayerParameter()
        copy.CopyFrom(layer)
        for place, bottom in enumerate(layer.bottom):
            source = sources[at, place]
            if uses[source] > 1:
                name = _split_name(bottom, layers[source[0]], source[1])
                copy.bottom[place] = f"{name}_{taken[source]}"
                taken[source] += 1
        result.layers.append(copy)
        result.positions.append(at)
        for place, top in enumerate(layer.top):
            if uses[at, place] > 1:
                split = _split(top, layer, place, uses[at, place])
                result.origin.update(dict.fromkeys(split.top, top))
                if (at, place) in weights:
                    del copy.loss_weight[:]
                    rest = [0.0] * (len(split.top) - 1)
                    split.loss_weight.extend([weights[at, place], *rest])
                result.layers.append(split)
                result.positions.append(None)
    return result


def _split_name(blob: str, layer: Any, place: int) -> str:
    return f"{blob}_{layer.name}_{place}_split"


def _split(blob: str, layer: Any, place: int, uses: int) -> Any:
    name = _split_name(blob, layer, place)
    tops = [f"{name}_{number}" for number in range(uses)]
    return messages.LayerParameter(name=name, type="Split", bottom=[blob], top=tops)
