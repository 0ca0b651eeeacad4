"""The functions of all supported layer types; importing this package registers them."""

from irv2caffe.engine.layers import (
    accuracy,
    arrange,
    dense,
    given,
    losses,
    neuron,
    normalize,
    pooling,
    spatial,
)

__all__ = [
    "accuracy",
    "arrange",
    "dense",
    "given",
    "losses",
    "neuron",
    "normalize",
    "pooling",
    "spatial",
]
