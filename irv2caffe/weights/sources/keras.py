"""The names of Keras's ``applications.InceptionResNetV2``, with or without its top.

Keras numbers most of its layers, in one order in older files and in another in files of Keras 3.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from irv2caffe.weights.scopes import CONVOLUTIONS, LOGITS, Scope, block_of
from irv2caffe.weights.tensors import HWIO, IN_OUT, Key, Role, SourceArrays, StoredArray, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_CONV, _BN = "conv2d", "batch_normalization"
_NUMBERED = re.compile(r"(conv2d|batch_normalization)(?:_v[12])?(?:_(\d+))?")
_VARIABLES = {
    "kernel": Role.WEIGHT,
    "bias": Role.BIAS,
    "gamma": Role.GAMMA,
    "beta": Role.BETA,
    "moving_mean": Role.MEAN,
    "moving_variance": Role.VARIANCE,
}
_CONV_VARS = (Role.WEIGHT, Role.BIAS)
_BN_VARS = (Role.GAMMA, Role.BETA, Role.MEAN, Role.VARIANCE)  # Keras's own net has no gamma
_OPTIMIZERS = ("optimizer", "optimizer_weights")


def from_keras(arrays: Mapping[str, StoredArray]) -> SourceArrays:
    """The data sets of a Keras file by their role.

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
    roles = _roles_in_keras3_files(weights) if by_number else _roles_in_old_files(weights)
    roles |= _classifier(weights)
    for name, raw in weights.items():
        key = roles.get(name)
        if key is None:
            # A head has matrices only.
            (found.unexpected if len(raw.shape) > 2 else found.head).append(name)
        else:
            axes = () if key.role != Role.WEIGHT else IN_OUT if key.scope == LOGITS else HWIO
            found.tensors[key] = Tensor(name, raw, axes)
    return found


def _roles_in_old_files(weights: Iterable[str]) -> dict[str, Key]:
    """The roles in older files: ``.../conv2d_7/kernel:0``, numbered in order of creation."""
    named = {scope.keras: scope.slim for scope in CONVOLUTIONS if scope.keras}
    named |= {f"{keras}_bn": slim for keras, slim in named.items()}
    layers = {_layer(name) for name in weights}
    named |= _numbered(layers, [scope for scope in CONVOLUTIONS if not scope.keras])
    roles = {}
    for name in weights:
        role = _VARIABLES.get(name.rsplit("/", 1)[-1].split(":")[0])
        scope = named.get(_layer(name))
        if role and scope:
            roles[name] = Key(scope, role)
    return roles


def _layer(name: str) -> str:
    """The layer in a path such as ``model_weights/conv2d_1/conv2d_1/kernel:0``."""
    return ("/" + name).rsplit("/", 2)[1]


def _roles_in_keras3_files(weights: Iterable[str]) -> dict[str, Key]:
    """The roles in files of Keras 3: ``layers/conv2d_7/vars/0``, in order of ``model.layers``."""
    paths = {name: name.split("/") for name in weights}
    paths = {name: path for name, path in paths.items() if len(path) > 2 and path[-2] == "vars"}
    layers = {path[-3] for path in paths.values()}
    scopes = _numbered(layers, _in_model_order(CONVOLUTIONS))
    counts: dict[str, int] = {}
    for path in paths.values():
        counts[path[-3]] = counts.get(path[-3], 0) + 1
    roles = {}
    for name, path in paths.items():
        layer, index = path[-3], path[-1]
        parts = _CONV_VARS if not layer.startswith(_BN) else _BN_VARS[-counts[layer] :]
        if layer in scopes and index.isdecimal() and int(index) < len(parts):
            roles[name] = Key(scopes[layer], parts[int(index)])
    return roles


def _classifier(weights: Mapping[str, StoredArray]) -> dict[str, Key]:
    """The only inner product, whatever its name; several of them are another head."""
    kernels = [name for name, raw in weights.items() if len(raw.shape) == 2]
    if len(kernels) != 1:
        return {}
    layer, _, kernel = kernels[0].rpartition("/")
    bias = f"{layer}/{kernel.replace('kernel', 'bias') if 'kernel' in kernel else 1}"
    found = {kernels[0]: Key(LOGITS, Role.WEIGHT)}
    return found | ({bias: Key(LOGITS, Role.BIAS)} if bias in weights else {})


def _in_model_order(scopes: Iterable[Scope]) -> list[Scope]:
    """The order of ``model.layers``: by distance to the output, then in order of creation."""
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

    A program goes on counting with each model it makes, so the lowest number is the first layer.
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
