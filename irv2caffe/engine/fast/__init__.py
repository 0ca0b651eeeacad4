"""A training step, forward and backward, as fast as the options allow."""

from irv2caffe.engine.fast.step import Step, make_step

__all__ = ["Step", "make_step"]
