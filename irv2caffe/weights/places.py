"""Finds the weight blobs of a net and their roles in the published network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import FormatError, WeightsError, first_of
from irv2caffe.proto import messages
from irv2caffe.proto.text import read_prototxt
from irv2caffe.weights.scopes import AUX, AUX_LOGITS, BN_EPS, CONVOLUTIONS, KNOWN, LOGITS
from irv2caffe.weights.tensors import Key, Role

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_CLASSIFIER = "classifier"
_WITH_WEIGHTS = frozenset(
    {"Convolution", "Deconvolution", "InnerProduct", "BatchNorm", "Scale", "Bias", "PReLU"}
    | {"Embed", "LSTM", "RNN", "Parameter"}
)
_CHANNELS_OF_DATA = 3


@dataclass
class LayerGroup:
    """A convolution or inner product with the BatchNorm and Scale (or Bias) after it."""

    layer: Any
    inputs: int
    norm: Any = None
    affine: Any = None

    @property
    def layers(self) -> list[Any]:
        """Its layers."""
        return [layer for layer in (self.layer, self.norm, self.affine) if layer is not None]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its weight."""
        if self.layer.type == "InnerProduct":
            return (self.layer.inner_product_param.num_output, self.inputs)
        param = self.layer.convolution_param
        return (param.num_output, self.inputs // max(1, param.group), *_kernel(param))


@dataclass(frozen=True)
class Place:
    """A weight blob.

    Attributes:
        layer: name of its layer.
        index: position among the layer's blobs.
        shape: its shape in Caffe.
    """

    layer: str
    index: int
    shape: tuple[int, ...]


@dataclass
class NetPlaces:
    """The weight blobs of a net.

    Attributes:
        net: the NetParameter.
        places: the blob for each role, without BatchNorm's third one, a factor.
        groups: the layers, by scope.
        by_order: the layers were recognised by their order, not by their names.
        problems: one line for each difference from the published network.
    """

    net: Any
    places: dict[Key, Place] = field(default_factory=dict)
    groups: dict[str, LayerGroup] = field(default_factory=dict)
    by_order: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier; 0 without one."""
        group = self.groups.get(LOGITS)
        return group.layer.inner_product_param.num_output if group else 0


def read_places(path: Path) -> NetPlaces:
    """Finds the weight blobs of the net in a prototxt.

    Raises:
        FormatError: no layers, or layers from before Caffe 1.0.
        WeightsError: not the network whose weights are published.
    """
    net = read_prototxt(path, messages.NetParameter)
    if not net.layer:
        hint = "bring it up to date with Caffe's upgrade_net_proto_text" if net.layers else ""
        raise FormatError("no net of Caffe 1.0: it has no layers", hint, path=path)
    _refuse_unconnected(net, path)
    groups, problems = _groups(net)
    found = NetPlaces(net, problems=problems)
    names = {group.layer.name for group in groups} & KNOWN
    scopes = _scopes_by_name(groups) if names else _scopes_by_order(groups)
    if scopes is None:
        raise WeightsError(
            f"{path}: not the network whose weights are published",
            tuple(f"{group.layer.name}: unknown" for group in groups),
            "build it with: irv2caffe build-net --variant slim",
        )
    found.by_order = not names
    for group in groups:
        scope = scopes.get(group.layer.name)
        if scope is None:
            problems.append(f"{group.layer.name}: the published network has no such layer")
            continue
        found.groups[scope] = group
        _add_places(found, scope, group)
    problems += _wrong_eps(found.groups)
    return found


def _scopes_by_name(groups: Iterable[LayerGroup]) -> dict[str, str]:
    """Scopes by the names of layers; a classifier may have a name of its own."""
    scopes = {name: name for name in KNOWN} | {_CLASSIFIER: LOGITS}
    found = {
        group.layer.name: scopes[group.layer.name] for group in groups if group.layer.name in scopes
    }
    for group in groups:
        name = group.layer.name
        scope = AUX_LOGITS if name.startswith(f"{AUX}/") else LOGITS
        if group.layer.type == "InnerProduct" and scope not in found.values():
            found[name] = scope
    return found


def _scopes_by_order(groups: list[LayerGroup]) -> dict[str, str] | None:
    """Scopes for a net with other names, but the same layers in the same order."""
    kinds = [group.layer.type for group in groups]
    if kinds != ["Convolution"] * len(CONVOLUTIONS) + ["InnerProduct"]:
        return None
    names = [*(scope.slim for scope in CONVOLUTIONS), LOGITS]
    return {group.layer.name: name for group, name in zip(groups, names, strict=True)}


def _groups(net: Any) -> tuple[list[LayerGroup], list[str]]:
    """The groups of layers with weights; a line for each layer that the published net lacks."""
    channels = _input_channels(net)
    reach: dict[str, LayerGroup] = {}  # by the top that the group's next layer reads
    groups: dict[str, LayerGroup] = {}
    problems = []
    for layer in net.layer:
        before = reach.pop(layer.bottom[0], None) if layer.bottom else None
        if layer.type in {"Convolution", "InnerProduct"}:
            group = groups.setdefault(
                layer.name, LayerGroup(layer, channels.get(layer.bottom[0], 0))
            )
            reach[layer.top[0]] = group
        elif layer.type == "BatchNorm" and before and not before.norm:
            before.norm = layer
            reach[layer.top[0]] = before
        elif _is_affine(layer) and before and before.norm and not before.affine:
            before.affine = layer
        elif layer.type in _WITH_WEIGHTS and (layer.type != "Scale" or _is_affine(layer)):
            problems.append(f"{layer.name}: the published network has no {layer.type} here")
        for top in layer.top:
            channels[top] = _channels(layer, channels)
    return list(groups.values()), problems


def _refuse_unconnected(net: Any, path: Path) -> None:
    """Raises FormatError for a layer with weights that lacks a bottom or top."""
    for layer in net.layer:
        if layer.type in _WITH_WEIGHTS - {"Parameter"} and not (layer.bottom and layer.top):
            lacking = "top" if layer.bottom else "bottom"
            raise FormatError(f"layer {layer.name} has no {lacking}", path=path)


def _input_channels(net: Any) -> dict[str, int]:
    """The channels of inputs without a layer, as deploy nets had before 2016."""
    sizes = [list(shape.dim) for shape in net.input_shape]
    sizes = sizes or [list(net.input_dim[i : i + 4]) for i in range(0, len(net.input_dim), 4)]
    named = zip(net.input, sizes, strict=False)
    return {name: int(dims[1]) for name, dims in named if len(dims) > 1}


def _is_affine(layer: Any) -> bool:
    """Whether it is a Scale or Bias with weights, which one with two bottoms does not have."""
    return layer.type in {"Scale", "Bias"} and len(layer.bottom) == 1


def _channels(layer: Any, channels: dict[str, int]) -> int:
    """The channels of a layer's tops, for the layer types of this network."""
    if layer.type == "Convolution":
        return int(layer.convolution_param.num_output)
    if layer.type == "InnerProduct":
        return int(layer.inner_product_param.num_output)
    if layer.type == "Concat":
        return sum(channels.get(bottom, 0) for bottom in layer.bottom)
    if layer.type == "Input" and layer.input_param.shape and layer.input_param.shape[0].dim[1:2]:
        return int(layer.input_param.shape[0].dim[1])
    return channels.get(layer.bottom[0], 0) if layer.bottom else _CHANNELS_OF_DATA


def _kernel(param: Any) -> tuple[int, int]:
    if param.HasField("kernel_h"):
        return param.kernel_h, param.kernel_w
    sizes = list(param.kernel_size) or [1]
    return sizes[0], sizes[-1]


def _add_places(found: NetPlaces, scope: str, group: LayerGroup) -> None:
    """Adds the blobs of a group, or a problem."""
    layer, outputs = group.layer, (group.shape[0],)
    param = layer.inner_product_param if layer.type == "InnerProduct" else layer.convolution_param
    found.places[Key(scope, Role.WEIGHT)] = Place(layer.name, 0, group.shape)
    if param.bias_term:
        found.places[Key(scope, Role.BIAS)] = Place(layer.name, 1, outputs)
    if group.norm is None:
        return
    found.places[Key(scope, Role.MEAN)] = Place(group.norm.name, 0, outputs)
    found.places[Key(scope, Role.VARIANCE)] = Place(group.norm.name, 1, outputs)
    if group.affine is None:
        found.problems.append(f"{layer.name}: no Scale follows its BatchNorm")
    elif group.affine.type == "Bias":
        found.places[Key(scope, Role.BETA)] = Place(group.affine.name, 0, outputs)
    else:
        found.places[Key(scope, Role.GAMMA)] = Place(group.affine.name, 0, outputs)
        if group.affine.scale_param.bias_term:
            found.places[Key(scope, Role.BETA)] = Place(group.affine.name, 1, outputs)


def _wrong_eps(groups: dict[str, LayerGroup]) -> list[str]:
    """One line for all BatchNorms with another ``eps`` than the published network."""
    norms = [group.norm for group in groups.values() if group.norm is not None]
    wrong = [
        norm for norm in norms if not math.isclose(norm.batch_norm_param.eps, BN_EPS, rel_tol=1e-4)
    ]
    if not wrong:
        return []
    names = first_of([norm.name for norm in wrong], 1)
    eps = wrong[0].batch_norm_param.eps
    return [f"{names}: eps is {eps:g}, where the published network has {BN_EPS:g}"]
