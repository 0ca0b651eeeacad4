"""What each layer type of Caffe makes of the shapes of its bottoms.

A rule follows the LayerSetUp and Reshape of the layer's source: what those check is checked here,
and what they would abort with is what the error says.
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
