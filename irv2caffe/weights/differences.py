"""Differences between a net and the published one that change its output with equal weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from irv2caffe.weights.places import LayerGroup

_MEAN = 127.5
_SCALES = {"Repeat": 0.17, "Repeat_1": 0.10, "Repeat_2": 0.20, "Block8": 1.0}
_TOLERANCE = 1e-3


def differences(net: Any, groups: Mapping[str, LayerGroup]) -> list[str]:
    """One line for each difference that changes the logits, although all weights fit.

    Args:
        net: the NetParameter.
        groups: its layers with weights, by scope.
    """
    found = [*_inputs(net), *_averages(net), *_residual_scales(net, groups)]
    return list(dict.fromkeys(found))


def _inputs(net: Any) -> Iterator[str]:
    """Data layers that do not scale images to the range from -1 to 1."""
    for layer in net.layer:
        if not layer.HasField("transform_param"):
            continue
        param = layer.transform_param
        means = set(param.mean_value)
        if means != {_MEAN} or not _close(param.scale, 1 / _MEAN):
            mean = param.mean_file or " ".join(f"{value:g}" for value in param.mean_value) or "0"
            yield (
                f"{layer.name}: images minus {mean}, times {param.scale:g}; "
                f"published: minus {_MEAN:g}, times {1 / _MEAN:.8f}"
            )


def _averages(net: Any) -> Iterator[str]:
    """Average pools that count the padding, without the layers that correct for it."""
    corrected = {
        layer.bottom[0] for layer in net.layer if layer.type == "Scale" and len(layer.bottom) == 2
    }
    constants = {top for layer in net.layer if layer.type == "DummyData" for top in layer.top}
    for layer in net.layer:
        if layer.type != "Pooling" or not (layer.bottom and layer.top):
            continue
        param = layer.pooling_param
        if param.pool != param.AVE or not (param.pad or param.pad_h):
            continue
        if layer.top[0] not in corrected and layer.bottom[0] not in constants:
            yield f"{layer.name}: the average counts the padding; published: it does not"


def _residual_scales(net: Any, groups: Mapping[str, LayerGroup]) -> Iterator[str]:
    """Eltwise coefficients of residual branches that are not the published ones."""
    ups = {
        group.layer.top[0]: scope
        for scope, group in groups.items()
        if scope.endswith("/Conv2d_1x1") and "/Branch_" not in scope
    }
    others: dict[tuple[str, float], int] = {}
    for layer in net.layer:
        for index, bottom in enumerate(layer.bottom if layer.type == "Eltwise" else ()):
            family = ups.get(bottom, "").partition("/")[0]
            coefficients = layer.eltwise_param.coeff
            scale = coefficients[index] if index < len(coefficients) else 1.0
            if family and not _close(scale, _SCALES[family]):
                others[family, scale] = others.get((family, scale), 0) + 1
    for (family, scale), count in others.items():
        yield f"{family}: residual scale {scale:g} in {count}; published: {_SCALES[family]:g}"


def _close(value: float, wanted: float) -> bool:
    return math.isclose(value, wanted, rel_tol=_TOLERANCE)
