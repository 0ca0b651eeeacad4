"""Upgrades nets written before 2016 to the current schema, as Caffe does when it reads them.

The rules and their order are those of Caffe's upgrade_proto.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from irv2caffe.errors import NetError
from irv2caffe.proto import messages
from irv2caffe.shapes.upgrade_v0 import has_v0_layers, upgrade_v0

# The types by their names in V1LayerParameter's enum without underscores.
_TYPES = {name.upper(): name for name in messages.LAYER_TYPES}
_TYPES |= {"NONE": "", "SOFTMAXLOSS": "SoftmaxWithLoss"}
_TRANSFORMS = {
    "DATA": "data_param",
    "IMAGE_DATA": "image_data_param",
    "WINDOW_DATA": "window_data_param",
}
_MOVED = ("scale", "mean_file", "crop_size", "mirror")


@dataclass(frozen=True)
class Upgraded:
    """An upgraded net.

    Attributes:
        net: a copy, with ``layer`` only.
        origins: for each layer its position in the file, None for an added input layer.
        notes: one sentence for everything that Caffe drops.
    """

    net: Any
    origins: tuple[int | None, ...]
    notes: tuple[str, ...]


def upgrade(net: Any) -> Any:
    """A copy of a net with ``layers`` as ``layer`` and inputs as an Input layer.

    Raises:
        NetError: layers of both kinds, or inputs of which some have no shape.
    """
    return upgraded(net).net


def upgraded(net: Any) -> Upgraded:
    """Like :func:`upgrade`, with the origin of each layer and notes of what was dropped.

    Raises:
        NetError: layers of both kinds, or inputs of which some have no shape.
    """
    net = messages.NetParameter.FromString(net.SerializePartialToString())
    origins: list[int | None] = list(range(len(net.layers) or len(net.layer)))
    notes: list[str] = []
    if has_v0_layers(net):
        net, kept, notes = upgrade_v0(net)
        origins = list(kept)
    if net.layers and net.layer:
        raise NetError("the net has both layer and layers", "write all layers as layer { }")
    for layer in net.layers:
        _upgrade_layer(layer, net.layer.add())
    del net.layers[:]
    if net.input and _upgrade_inputs(net, notes):
        origins.insert(0, None)
    for layer in net.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            for spec in layer.param:
                spec.lr_mult = spec.decay_mult = 0.0
    return Upgraded(net, tuple(origins), tuple(notes))


def _upgrade_layer(old: Any, new: Any) -> None:
    """Upgrades a V1LayerParameter; fields of the same name are copied."""
    kind = old.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[old.type].name
    if old.HasField("name"):
        new.name = old.name
    if old.HasField("type"):
        new.type = _TYPES[kind.replace("_", "")]
    fields = new.DESCRIPTOR.fields_by_name
    for field, value in old.ListFields():
        if field.name in {"name", "type", "param"} or field.name not in fields:
            continue
        if field.is_repeated:
            getattr(new, field.name).extend(value)
        else:
            getattr(new, field.name).CopyFrom(value)
    _upgrade_params(old, new)
    if kind in _TRANSFORMS:
        _upgrade_transform(getattr(new, _TRANSFORMS[kind]), new)


def _upgrade_params(old: Any, new: Any) -> None:
    """Upgrades four lists of names, share modes and multipliers to ``param``."""
    for key, values in (
        ("name", old.param),
        ("share_mode", old.blob_share_mode),
        ("lr_mult", old.blobs_lr),
        ("decay_mult", old.weight_decay),
    ):
        for index, value in enumerate(values):
            while len(new.param) <= index:
                new.param.add()
            setattr(new.param[index], key, value)


def _upgrade_transform(old: Any, new: Any) -> None:
    """Moves the fields of transform_param out of the data layer's own parameters."""
    for key in _MOVED:
        if old.HasField(key):
            setattr(new.transform_param, key, getattr(old, key))
            old.ClearField(key)


def _upgrade_inputs(net: Any, notes: list[str]) -> bool:
    """Upgrades ``input`` with ``input_shape`` or ``input_dim`` to an Input layer at the front.

    Returns False for inputs without any sizes, which Caffe drops.
    """
    names, shapes, dims = list(net.input), list(net.input_shape), list(net.input_dim)
    if not shapes and dims and len(dims) < 4 * len(names):
        raise NetError(
            f"{len(names)} input(s) need {4 * len(names)} input_dim, there are {len(dims)}",
            "give each input an input_shape { dim: ... }",
        )
    if shapes and len(shapes) < len(names):
        raise NetError(
            f"{len(names)} input(s) need {len(names)} input_shape, there are {len(shapes)}"
        )
    del net.input[:], net.input_shape[:], net.input_dim[:]
    if not (shapes or dims):
        notes.append(
            f"input: {', '.join(map(repr, names))}: without input_shape or input_dim Caffe drops it"
        )
        return False
    layers = list(net.layer)
    del net.layer[:]
    added = net.layer.add(name="input", type="Input", top=names)
    for index in range(len(names)):
        shape = added.input_param.shape.add()
        shape.dim.extend(shapes[index].dim if shapes else dims[4 * index : 4 * index + 4])
    net.layer.extend(layers)
    return True
