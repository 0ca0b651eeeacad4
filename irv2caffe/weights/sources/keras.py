"""Keras's ``applications.InceptionResNetV2``, with or without its top.

Most of its layers have no name of their own: Keras numbers them. The two generations of its files
number them differently.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from irv2caffe.weights.scopes import CONVOLUTIONS, LOGITS, Scope, block_of
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
    from collections.abc import Iterable, Mapping

_CONV, _BN = "conv2d", "batch_normalization"
_NUMBERED = re.compile(r"(conv2d|batch_normalization)(?:_v[12])?(?:_(\d+))?")
_VARIABLES = {
    "kernel": WEIGHT,
    "bias": BIAS,
    "gamma": GAMMA,
    "beta": BETA,
    "moving_mean": MEAN,
    "moving_variance": VARIANCE,
}
_CONV_VARS = (WEIGHT, BIAS)
_BN_VARS = (GAMMA, BETA, MEAN, VARIANCE)  # without gamma where the net has none, as Keras's has not
_OPTIMIZERS = ("optimizer", "optimizer_weights")


def from_keras(arrays: Mapping[str, StoredArray]) -> SourceArrays:
    """The data sets of a Keras file by their meaning.

    Args:
        arrays: data sets by their path in the file.
    """
    found = SourceArrays()
    weights: dict[str, StoredArray] = {}
    for name, raw in arrays.items():
        if name.split("/", 1)[0] in _OPTIMIZERS:
            found.ignored.append(name)
        else:
            weights[name] = raw
    by_number = any("/vars/" in name for name in weights)
    meanings = _meanings_of_vars(weights) if by_number else _meanings_of_names(weights)
    meanings |= _classifier(weights)
    for name, raw in weights.items():
        key = meanings.get(name)
        if key is None:
            # All convolutions of the network are found by their numbers; a head has matrices.
            (found.unexpected if len(raw.shape) > 2 else found.head).append(name)
        else:
            axes = () if key.part != WEIGHT else IN_OUT if key.scope == LOGITS else HWIO
            found.tensors[key] = Tensor(name, raw, axes)
    return found


def _meanings_of_names(weights: Iterable[str]) -> dict[str, Key]:
    """Of the older files: ``.../conv2d_7/kernel:0``, numbered as the layers were made."""
    named = {scope.keras: scope.slim for scope in CONVOLUTIONS if scope.keras}
    named |= {f"{keras}_bn": slim for keras, slim in named.items()}
    layers = {_layer(name) for name in weights}
    named |= _numbered(layers, [scope for scope in CONVOLUTIONS if not scope.keras])
    meanings = {}
    for name in weights:
        part = _VARIABLES.get(name.rsplit("/", 1)[-1].split(":")[0])
        scope = named.get(_layer(name))
        if part and scope:
            meanings[name] = Key(scope, part)
    return meanings


def _layer(name: str) -> str:
    """The layer in a path such as ``model_weights/conv2d_1/conv2d_1/kernel:0``."""
    return ("/" + name).rsplit("/", 2)[1]


def _meanings_of_vars(weights: Iterable[str]) -> dict[str, Key]:
    """Of Keras 3's files: ``layers/conv2d_7/vars/0``, numbered as the model lists its layers."""
    paths = {name: name.split("/") for name in weights}
    paths = {name: path for name, path in paths.items() if len(path) > 2 and path[-2] == "vars"}
    layers = {path[-3] for path in paths.values()}
    scopes = _numbered(layers, _listed(CONVOLUTIONS))
    counts: dict[str, int] = {}
    for path in paths.values():
        counts[path[-3]] = counts.get(path[-3], 0) + 1
    meanings = {}
    for name, path in paths.items():
        layer, index = path[-3], path[-1]
        parts = _CONV_VARS if not layer.startswith(_BN) else _BN_VARS[-counts[layer] :]
        if layer in scopes and index.isdecimal() and int(index) < len(parts):
            meanings[name] = Key(scopes[layer], parts[int(index)])
    return meanings


def _classifier(weights: Mapping[str, StoredArray]) -> dict[str, Key]:
    """The only fully connected layer, whatever it is called; several are another head."""
    kernels = [name for name, raw in weights.items() if len(raw.shape) == 2]
    if len(kernels) != 1:
        return {}
    layer, _, kernel = kernels[0].rpartition("/")
    bias = f"{layer}/{kernel.replace('kernel', 'bias') if 'kernel' in kernel else 1}"
    found = {kernels[0]: Key(LOGITS, WEIGHT)}
    return found | ({bias: Key(LOGITS, BIAS)} if bias in weights else {})


def _listed(scopes: Iterable[Scope]) -> list[Scope]:
    """The order of ``model.layers``: by their distance to the output, then as they were made."""
    blocks: dict[str, list[Scope]] = {}
    for scope in scopes:
        blocks.setdefault(block_of(scope.slim), []).append(scope)
    return [
        scope
        for block in blocks.values()
        for scope in sorted(block, key=lambda scope: (not scope.has_bn, -scope.depth))
    ]


def _numbered(layers: Iterable[str], convolutions: list[Scope]) -> dict[str, str]:
    """The scopes of numbered layers.

    Numbers go on from model to model of one program, so the lowest one counts as the first.
    """
    numbers: dict[str, dict[str, int]] = {_CONV: {}, _BN: {}}
    for layer in layers:
        match = _NUMBERED.fullmatch(layer)
        if match:
            numbers[match[1]][layer] = int(match[2] or 0)
    order = {
        _CONV: [scope.slim for scope in convolutions],
        _BN: [scope.slim for scope in convolutions if scope.has_bn],
    }
    scopes = {}
    for kind, numbered in numbers.items():
        first = min(numbered.values(), default=0)
        for layer, number in numbered.items():
            if number - first < len(order[kind]):
                scopes[layer] = order[kind][number - first]
    return scopes
