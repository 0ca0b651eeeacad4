"""timm's ``inception_resnet_v2``, and the model of the same structure that it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.weights.scopes import CONVOLUTIONS, LOGITS
from irv2caffe.weights.sources.wrapped import prefix_of
from irv2caffe.weights.tensors import (
    BETA,
    BIAS,
    GAMMA,
    MEAN,
    VARIANCE,
    WEIGHT,
    Key,
    SourceArrays,
    StoredArray,
    Tensor,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

BATCHES = "num_batches_tracked"
_BN = {
    "bn.weight": GAMMA,
    "bn.bias": BETA,
    "bn.running_mean": MEAN,
    "bn.running_var": VARIANCE,
}
_HEADS = ("classif.", "last_linear.")  # the first is timm's, the second that of its origin


def timm_names() -> dict[str, Key]:
    """The names of its state dict, in order; Caffe has nothing like ``num_batches_tracked``."""
    names: dict[str, Key] = {}
    for scope in CONVOLUTIONS:
        if scope.has_bn:
            names[f"{scope.timm}.conv.weight"] = Key(scope.slim, WEIGHT)
            names |= {f"{scope.timm}.{name}": Key(scope.slim, part) for name, part in _BN.items()}
        else:
            names[f"{scope.timm}.weight"] = Key(scope.slim, WEIGHT)
            names[f"{scope.timm}.bias"] = Key(scope.slim, BIAS)
    names["classif.weight"] = Key(LOGITS, WEIGHT)
    names["classif.bias"] = Key(LOGITS, BIAS)
    return names


def from_timm(arrays: Mapping[str, StoredArray], *, averaged: bool = False) -> SourceArrays:
    """The arrays of a state dict by their meaning.

    Args:
        arrays: of a file, in which the network may be a part of something larger.
        averaged: take the moving averages that the trainer kept of the weights.

    Raises:
        FormatError: no such averages, or several networks.
    """
    names = timm_names()
    names |= {f"last_linear.{part}": Key(LOGITS, part) for part in (WEIGHT, BIAS)}
    prefix = prefix_of(arrays, names, averaged=averaged)
    found = SourceArrays(prefix=prefix)
    for name, raw in arrays.items():
        plain = name.removeprefix(prefix)
        if not name.startswith(prefix):
            found.ignored.append(name)
        elif plain in names:
            found.tensors[names[plain]] = Tensor(name, raw)
        elif plain.startswith(_HEADS):
            found.head.append(name)
        elif not plain.endswith(f".bn.{BATCHES}"):
            found.unexpected.append(name)
    return found
