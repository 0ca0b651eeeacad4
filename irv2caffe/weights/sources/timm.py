"""The names of timm's ``inception_resnet_v2``, and of the model that it was derived from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.weights.scopes import CONVOLUTIONS, LOGITS
from irv2caffe.weights.sources.wrapped import prefix_of
from irv2caffe.weights.tensors import Key, Role, SourceArrays, StoredArray, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

BATCHES = "num_batches_tracked"
_BN = {
    "bn.weight": Role.GAMMA,
    "bn.bias": Role.BETA,
    "bn.running_mean": Role.MEAN,
    "bn.running_var": Role.VARIANCE,
}
_HEADS = ("classif.", "last_linear.")  # of timm, and of the model it was derived from


def timm_names() -> dict[str, Key]:
    """The names of its state dict, in order, without ``num_batches_tracked``."""
    names: dict[str, Key] = {}
    for scope in CONVOLUTIONS:
        if scope.has_bn:
            names[f"{scope.timm}.conv.weight"] = Key(scope.slim, Role.WEIGHT)
            names |= {f"{scope.timm}.{name}": Key(scope.slim, role) for name, role in _BN.items()}
        else:
            names[f"{scope.timm}.weight"] = Key(scope.slim, Role.WEIGHT)
            names[f"{scope.timm}.bias"] = Key(scope.slim, Role.BIAS)
    names["classif.weight"] = Key(LOGITS, Role.WEIGHT)
    names["classif.bias"] = Key(LOGITS, Role.BIAS)
    return names


def from_timm(arrays: Mapping[str, StoredArray], *, averaged: bool = False) -> SourceArrays:
    """The arrays of a state dict by their role.

    Args:
        arrays: of a file; the network may be part of a larger module.
        averaged: take the moving averages that the trainer kept of the weights.

    Raises:
        FormatError: no such averages, or several networks.
    """
    names = timm_names()
    names |= {f"last_linear.{role}": Key(LOGITS, role) for role in (Role.WEIGHT, Role.BIAS)}
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
