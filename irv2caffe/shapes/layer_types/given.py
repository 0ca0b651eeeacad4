"""Shape rules that the user gives for a layer type on the command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from irv2caffe.shapes.layer_types.base import LayerSetup, LayerShapes, Shape, ShapeRule

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIZE = re.compile(r"(\d{0,9})([NCHW])|\d{1,10}")


def given_rule(tops: Sequence[str]) -> ShapeRule:
    """The rule of a layer type whose tops are given as ``same``, ``scalar`` or sizes.

    A size is a number, or N, C, H or W of the first bottom, with an optional factor: ``NxCx2Hx2W``.
    """
    sizes = [re.split("[xX]", top) for top in tops if top not in {"same", "scalar"}]
    ignores_bottoms = len(sizes) == len(tops) and all(
        size.isdecimal() for shape in sizes for size in shape
    )

    def function(layer: LayerSetup) -> LayerShapes:
        wanted = list(tops) * (layer.num_tops if len(tops) == 1 else 1)
        if len(wanted) != layer.num_tops:
            layer.fail(f"has {layer.num_tops} top(s), --layer-type gives {len(wanted)} shapes")
        shapes = [_given_shape(layer, text, place) for place, text in enumerate(wanted)]
        return LayerShapes(shapes, partial=bool(layer.bottoms))  # it may have weights

    return ShapeRule(function, (0, None), (0, None), ignores_bottoms=ignores_bottoms)


def is_shape_text(text: str) -> bool:
    """Whether :func:`given_rule` accepts the shape of a top."""
    parts = re.split("[xX]", text)
    return text in {"same", "scalar"} or all(_SIZE.fullmatch(part) for part in parts)


def _given_shape(layer: LayerSetup, text: str, place: int) -> Shape:
    if text == "scalar":
        return ()
    if text == "same":
        layer.check(bool(layer.bottoms), "has no bottom whose shape could be the same")
        return layer.bottoms[place if len(layer.bottoms) == layer.num_tops else 0]
    sizes = []
    for part in re.split("[xX]", text):
        match = _SIZE.fullmatch(part)
        assert match is not None
        if not match[2]:
            sizes.append(int(part))
            continue
        axis = "NCHW".index(match[2])
        if not layer.bottoms or axis >= len(layer.bottoms[0]):
            layer.fail(f"has no bottom with an axis {match[2]}")
        sizes.append(int(match[1] or 1) * layer.bottoms[0][axis])
    return tuple(sizes)
