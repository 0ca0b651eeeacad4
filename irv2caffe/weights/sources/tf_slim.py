"""TF-slim's checkpoints of ``inception_resnet_v2``, the published and one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.weights.scopes import AUX_CONVOLUTIONS, AUX_LOGITS, CONVOLUTIONS, LOGITS
from irv2caffe.weights.tensors import (
    BETA,
    BIAS,
    GAMMA,
    HWIO,
    IN_OUT,
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

_ROOT = "InceptionResnetV2/"
_AVERAGE = "/ExponentialMovingAverage"
_PARTS = {
    "weights": WEIGHT,
    "biases": BIAS,
    "BatchNorm/gamma": GAMMA,
    "BatchNorm/beta": BETA,
    "BatchNorm/moving_mean": MEAN,
    "BatchNorm/moving_variance": VARIANCE,
}


def _names() -> dict[str, tuple[Key, tuple[int, ...]]]:
    scopes = {scope.slim: scope.slim for scope in CONVOLUTIONS}
    scopes |= {name: name for name in (*AUX_CONVOLUTIONS, AUX_LOGITS)} | {"Logits/Logits": LOGITS}
    names: dict[str, tuple[Key, tuple[int, ...]]] = {}
    for name, scope in scopes.items():
        for variable, part in _PARTS.items():
            axes = IN_OUT if scope in {LOGITS, AUX_LOGITS} else HWIO
            names[f"{_ROOT}{name}/{variable}"] = (
                Key(scope, part),
                axes if part == WEIGHT else (),
            )
    return names


def from_tf_slim(arrays: Mapping[str, StoredArray], *, averaged: bool = False) -> SourceArrays:
    """The variables of a checkpoint by their meaning.

    What an optimizer keeps has the name of its variable and one word more; it is left out, and so
    is all that stands outside of the net, such as ``global_step``.

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
