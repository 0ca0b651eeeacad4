"""Counts learned weights; weights shared by name (Caffe's Net::AppendParam) count once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.shapes.layer_types import SHAPE_RULES, count
from irv2caffe.shapes.layer_types.base import shape_text

if TYPE_CHECKING:
    from irv2caffe.shapes.layer_types import LayerSetup, LayerShapes, Shape


class SharedWeights:
    """The named weights of the layers so far."""

    def __init__(self) -> None:
        self._owners: dict[str, tuple[Shape, str]] = {}

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
        if shapes.statistics:
            return 0, 0
        learned = frozen = 0
        for number, shape in enumerate(shapes.params):
            spec = specs[number] if number < len(specs) else None
            if spec is not None and spec.name:
                if spec.name in self._owners:
                    self._check_shared(layer, spec, shape)
                    continue
                self._owners[spec.name] = (shape, layer.proto.name)
            learned += count(shape)
            if spec is not None and spec.lr_mult == 0:
                frozen += count(shape)
        return learned, frozen

    def _check_shared(self, layer: LayerSetup, spec: Any, shape: Shape) -> None:
        owned, owner = self._owners[spec.name]
        permissive = spec.share_mode == spec.PERMISSIVE
        fits = count(owned) == count(shape) if permissive else owned == shape
        if not fits:
            here, there = shape_text(shape), shape_text(owned)
            layer.fail(
                f"cannot share param {spec.name!r} with layer {owner!r}: "
                f"its shape is {here}, that of {owner!r} {there}"
            )
