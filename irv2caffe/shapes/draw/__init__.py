"""A picture of any net: stages, equal blocks folded, branches visible, with shapes."""

from irv2caffe.shapes.draw.page import draw
from irv2caffe.shapes.draw.scene import Scene, to_svg

__all__ = ["Scene", "draw", "to_svg"]
