"""Shape rules: for each layer type, the shapes of tops and weights from those of the bottoms.

A rule follows LayerSetUp and Reshape in the layer's source, with the same checks: it raises an
error where Caffe would abort.
"""

from irv2caffe.shapes.layer_types.base import (
    SHAPE_RULES,
    UNKNOWN,
    LayerSetup,
    LayerShapes,
    Shape,
    ShapeRule,
    count,
)

# Importing a module of rules registers them.
from irv2caffe.shapes.layer_types import arrange, data_loss, dense, spatial  # isort: skip

__all__ = [
    "SHAPE_RULES",
    "UNKNOWN",
    "LayerSetup",
    "LayerShapes",
    "Shape",
    "ShapeRule",
    "arrange",
    "count",
    "data_loss",
    "dense",
    "spatial",
]
