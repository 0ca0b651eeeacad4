"""Upgrades layers written before 2014 (``layers { layer { type: "conv" kernelsize: 3 } }``).

The rules and their order are those of UpgradeV0Net in Caffe's upgrade_proto.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.errors import NetError
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from collections.abc import Sequence

# The types in V1LayerParameter's enum, and the messages that have their fields.
_TYPES = {
    "conv": "CONVOLUTION",
    "images": "IMAGE_DATA",
    "innerproduct": "INNER_PRODUCT",
    "pool": "POOLING",
} | {
    name: name.upper()
    for name in (
        *("accuracy", "bnll", "concat", "data", "dropout", "euclidean_loss", "flatten"),
        *("hdf5_data", "hdf5_output", "im2col", "infogain_loss", "lrn"),
        *("multinomial_logistic_loss", "relu", "sigmoid", "softmax", "softmax_loss", "split"),
        *("tanh", "window_data"),
    )
}
_PARAMS = {
    name: f"{_TYPES[name].lower()}_param"
    for name in (
        *("concat", "conv", "data", "dropout", "hdf5_data", "images", "infogain_loss"),
        *("innerproduct", "lrn", "pool", "window_data"),
    )
}
_RENAMED = {
    "batchsize": "batch_size",
    "biasterm": "bias_term",
    "det_bg_threshold": "bg_threshold",
    "det_context_pad": "context_pad",
    "det_crop_mode": "crop_mode",
    "det_fg_fraction": "fg_fraction",
    "det_fg_threshold": "fg_threshold",
    "kernelsize": "kernel_size",
    "shuffle_images": "shuffle",
}
_TRANSFORMS = {
    "cropsize": "crop_size",
    "meanfile": "mean_file",
    "mirror": "mirror",
    "scale": "scale",
}
_OF_V1_LAYERS = frozenset({"name", "blobs", "blobs_lr", "weight_decay"})


def has_v0_layers(net: Any) -> bool:
    """Whether a net has layers in the format before 2014."""
    return any(layer.HasField("layer") for layer in net.layers)


def upgrade_v0(net: Any) -> tuple[Any, list[int], list[str]]:
    """Upgrades a net with ``layers { layer { ... } }`` to one with ``layers``.

    As in Caffe, a padding layer becomes the ``pad`` of the convolution or pooling that reads it,
    and fields that such nets did not have are dropped: ``layer``, ``input_shape``, and all of a
    layer but its bottoms, tops and inner ``layer``.

    Returns:
        The net; for each of its layers the position in the old net; notes of what was dropped.

    Raises:
        NetError: an unknown type, a layer of another form, or a padding layer where Caffe does
            not take one.
    """
    new, notes = type(net)(), []
    new.input.extend(net.input)
    new.input_dim.extend(net.input_dim)
    for field in ("name", "force_backward"):
        if net.HasField(field):
            setattr(new, field, getattr(net, field))
    if net.layer or net.input_shape:
        dropped = "layer" if net.layer else "input_shape"
        notes.append(f"{dropped}: Caffe drops it beside layers of the form before 2014 (V0)")
    origins = []
    for place, old in enumerate(_with_padding(net)):
        if old is not None:
            _upgrade_layer(old, new.layers.add(), notes)
            origins.append(place)
    return new, origins, notes


def _with_padding(net: Any) -> Sequence[Any | None]:
    """The layers with the ``pad`` of padding layers above them; None for padding layers."""
    producer: dict[str, Any] = dict.fromkeys(net.input)
    layers: list[Any | None] = []
    for old in net.layers:
        kind = old.layer.type
        changed = type(old)()
        changed.CopyFrom(old)
        for index, bottom in enumerate(old.bottom):
            if bottom not in producer:
                _refuse(old, f"bottom {bottom!r} is not produced by any layer above")
            source = producer[bottom]
            if source is None or source.layer.type != "padding":
                continue
            if kind not in {"conv", "pool"}:
                _refuse(old, "a padding layer leads to layers of type conv and pool only")
            if not len(old.bottom) == len(source.bottom) == len(source.top) == 1:
                _refuse(old, "a padding layer and the layer after it have one bottom each")
            changed.layer.pad = source.layer.pad
            changed.bottom[index] = source.bottom[0]
        layers.append(None if kind == "padding" else changed)
        producer.update(dict.fromkeys(old.top, old))
    return layers


def _upgrade_layer(old: Any, new: Any, notes: list[str]) -> None:
    new.bottom.extend(old.bottom)
    new.top.extend(old.top)
    if not old.HasField("layer"):
        raise NetError(
            f"layer {old.name!r}: in a net with layers of the form before 2014 (V0) Caffe drops "
            "the type and settings of layers in the form after it",
            "write all layers in one form",
            layer=old.name,
        )
    inner, kind = old.layer, old.layer.type
    if inner.HasField("type"):
        if kind not in _TYPES:
            _refuse(old, f"unknown layer type of the form before 2014 (V0): {kind!r}")
        new.type = messages.message_class("V1LayerParameter").LayerType.Value(_TYPES[kind])
    for field, value in inner.ListFields():
        if field.name == "type":
            continue
        if field.name in _OF_V1_LAYERS:
            _put(new, field.name, value)
        elif field.name in _TRANSFORMS:
            _put(new.transform_param, _TRANSFORMS[field.name], value)
        elif field.name == "hdf5_output_param" and kind == "hdf5_output":
            new.hdf5_output_param.CopyFrom(value)
        elif not _put_param(new, kind, field.name, value):
            notes.append(f"layer {inner.name!r}: {field.name} has no effect in type {kind!r}")


def _put_param(new: Any, kind: str, name: str, value: Any) -> bool:
    """Sets a field in the layer type's own message; False if that does not have it."""
    target = _RENAMED.get(name, name)
    param = getattr(new, _PARAMS[kind]) if kind in _PARAMS else None
    if param is None or target not in param.DESCRIPTOR.fields_by_name:
        return False
    if name == "shuffle_images" and kind != "images":
        return False
    _put(param, target, value)
    return True


def _put(message: Any, name: str, value: Any) -> None:
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.is_repeated:
        several = hasattr(value, "__len__") and not isinstance(value, str)
        getattr(message, name).extend(value if several else [value])
    elif field.message_type is not None:
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)


def _refuse(layer: Any, problem: str) -> None:
    name = layer.layer.name
    raise NetError(f"layer {name!r} ({layer.layer.type}): {problem}", layer=name)
