"""The functions of all supported layer types; importing this package registers them."""

from irv2caffe.engine.layers import dense, losses

__all__ = ["dense", "losses"]
