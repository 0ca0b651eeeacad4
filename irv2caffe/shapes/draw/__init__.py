"""Draws any net: its stages with branches and shapes; equal blocks are drawn once.

Takes the stages of a net; gives an SVG text or a file. Imports the modules of ``shapes``, and
matplotlib in ``picture`` only.
"""

from irv2caffe.shapes.draw.page import draw
from irv2caffe.shapes.draw.scene import Scene, to_svg

__all__ = ["Scene", "draw", "to_svg"]
