"""The names of TF-slim's ``inception_resnet_v2`` in checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.weights.scopes import AUX_CONVOLUTIONS, AUX_LOGITS, CONVOLUTIONS, LOGITS
from irv2caffe.weights.tensors import HWIO, IN_OUT, Key, Role, SourceArrays, StoredArray, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROOT = "InceptionResnetV2/"
_AVERAGE = "/ExponentialMovingAverage"
_ROLES = {
    "weights": Role.WEIGHT,
    "biases": Role.BIAS,
    "BatchNorm/gamma": Role.GAMMA,
    "BatchNorm/beta": Role.BETA,
    "BatchNorm/moving_mean": Role.MEAN,
    "BatchNorm/moving_variance": Role.VARIANCE,
}


def _names() -> dict[str, tuple[Key, tuple[int, ...]]]:
    scopes = {scope.slim: scope.slim for scope in CONVOLUTIONS}
    scopes |= {name: name for name in (*AUX_CONVOLUTIONS, AUX_LOGITS)} | {"Logits/Logits": LOGITS}
    names: dict[str, tuple[Key, tuple[int, ...]]] = {}
    for name, scope in scopes.items():
        for variable, role in _ROLES.items():
            axes = IN_OUT if scope in {LOGITS, AUX_LOGITS} else HWIO
            names[f"{_ROOT}{name}/{variable}"] = (
                Key(scope, role),
                axes if role == Role.WEIGHT else (),
            )
    return names


def from_tf_slim(arrays: Mapping[str, StoredArray], *, averaged: bool = False) -> SourceArrays:
    """The variables of a checkpoint by their role.

    Variables of the optimizer, named after a variable of the net and one word more, are ignored,
    and so are variables outside of the net, such as ``global_step``.

    Args:
        arrays: the variables.
        averaged: take the moving averages that the trainer kept of the weights.
    """
    names = _names()
    found = SourceArrays()
    for name, raw in arrays.items():
        plain = name.removesuffix(_AVERAGE) if averaged else name
        if plain in names and name.endswith(_AVERAGE) == averaged:
            key, axes = names[plain]
            found.tensors[key] = Tensor(name, raw, axes)
        elif not name.startswith(_ROOT) or name in names or name.rpartition("/")[0] in names:
            found.ignored.append(name)
        else:
            found.unexpected.append(name)
    return found
