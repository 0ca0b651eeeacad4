"""Counts learned weights; weights shared by name (Caffe's Net::AppendParam) count once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.shapes.layer_types import SHAPE_RULES, count
from irv2caffe.shapes.layer_types.base import shape_text

if TYPE_CHECKING:
    from irv2caffe.shapes.layer_types import LayerSetup, LayerShapes, Shape


@dataclass(frozen=True)
class _Owner:
    """The layer that first names a weight, and the multipliers that were given so far."""

    shape: Shape
    layer: str
    multipliers: dict[str, float] = field(default_factory=dict)


class SharedWeights:
    """The named weights of the layers so far."""

    def __init__(self) -> None:
        self._owners: dict[str, _Owner] = {}

    def learned(self, layer: LayerSetup, shapes: LayerShapes) -> tuple[int, int]:
        """The number of learned values that a layer adds, and how many of them are frozen.

        Raises:
            NetError: Caffe would refuse the layer's ``param``.
        """
        specs = layer.proto.param
        if not (
            len(specs) <= len(shapes.params)
            or shapes.partial
            or layer.proto.type not in SHAPE_RULES
        ):
            layer.fail(f"has {len(specs)} param for {len(shapes.params)} weights")
        learned = frozen = 0
        for number, shape in enumerate(shapes.params):
            spec = specs[number] if number < len(specs) else None
            if spec is not None and spec.name:
                is_new = spec.name not in self._owners
                owner = self._owners.setdefault(spec.name, _Owner(shape, layer.proto.name))
                _check_shared(layer, spec, shape, owner)
                if not is_new:
                    continue
            learned += count(shape)
            if spec is not None and spec.lr_mult == 0:
                frozen += count(shape)
        return (0, 0) if shapes.statistics else (learned, frozen)


def _check_shared(layer: LayerSetup, spec: Any, shape: Shape, owner: _Owner) -> None:
    """Refuses another shape than the owner's, and other multipliers than those given before."""
    permissive = spec.share_mode == spec.PERMISSIVE
    fits = count(owner.shape) == count(shape) if permissive else owner.shape == shape
    if not fits:
        here, there = shape_text(shape), shape_text(owner.shape)
        layer.fail(
            f"cannot share param {spec.name!r} with layer {owner.layer!r}: "
            f"its shape is {here}, that of {owner.layer!r} {there}"
        )
    for name in ("lr_mult", "decay_mult"):
        if spec.HasField(name):
            value = getattr(spec, name)
            known = owner.multipliers.setdefault(name, value)
            if known != value:
                layer.fail(
                    f"shares param {spec.name!r} with {name} {value:g}, "
                    f"which is {known:g} in a layer above",
                    "give it in one of the layers only",
                )
