"""The summary of a net as JSON values."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from irv2caffe.shapes.layer_types import UNKNOWN

if TYPE_CHECKING:
    from irv2caffe.shapes.infer import LayerInfo
    from irv2caffe.shapes.summary import NetSummary, Part


def as_dict(summary: NetSummary, *, layers: bool = False) -> dict[str, Any]:
    """A summary as JSON values; with ``layers`` also that of each layer.

    An unknown shape is null; ``partial`` is true where figures are lower bounds.
    """
    parts = zip(summary.stages, summary.stage_parts, strict=True)
    shapes = summary.shapes
    values: dict[str, Any] = {
        "name": shapes.name,
        "phase": shapes.phase,
        "batch_size": summary.batch,
        **_values(summary.total),
        "caffe_log_bytes": summary.caffe_log_bytes,
        "stages": [
            {
                "name": stage.name,
                "blocks": [{"name": block.name, "count": times} for block, times in stage.runs()],
                **_values(part),
            }
            for stage, part in parts
        ],
        "unknown_layers": {layer.name: layer.type for layer in shapes.unknown},
        "notes": list(shapes.notes),
    }
    if layers:
        infos = zip(shapes.layers, summary.layer_parts, strict=True)
        values["layers"] = [_layer_values(info, part) for info, part in infos]
    return values


def _values(part: Part) -> dict[str, Any]:
    return {
        "output": _shape(part.output),
        "parameters": part.parameters,
        "frozen": part.frozen,
        "statistics": part.statistics,
        "macs_per_image": part.macs,
        "memory_bytes": {**asdict(part.memory), "total": part.memory.total},
        "partial": part.partial,
    }


def _layer_values(info: LayerInfo, part: Part) -> dict[str, Any]:
    return {
        "name": info.name,
        "type": info.type,
        "line": info.line,
        "bottoms": dict(zip(info.bottoms, map(_shape, info.bottom_shapes), strict=True)),
        "tops": dict(zip(info.tops, map(_shape, info.top_shapes), strict=True)),
        "weights": [list(shape) for shape in info.params],
        **_values(part),
    }


def _shape(shape: tuple[int, ...]) -> list[int] | None:
    return None if shape is UNKNOWN else list(shape)
