"""A training step, forward and backward, as fast as the options allow.

The plain step runs the net layer by layer. The fast one rearranges the layers (``graph``, ``fuse``,
``merge``), compiles each kind of block once (``regions``) and records the whole for the GPU
(``record``); ``modes`` says which of these the options allow.
"""

from irv2caffe.engine.fast.modes import PLAIN, Modes, choose_modes
from irv2caffe.engine.fast.protocol import Step
from irv2caffe.engine.fast.step import make_step

__all__ = ["PLAIN", "Modes", "Step", "choose_modes", "make_step"]
