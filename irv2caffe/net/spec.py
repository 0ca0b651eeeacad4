"""NetSpec builds a NetParameter layer by layer and refuses what Caffe would refuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UsageError, did_you_mean
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Top:
    """The top of a layer.

    Attributes:
        name: of the blob.
        channels: size of axis 1.
        size: height and width; 0 without spatial axes.
    """

    name: str
    channels: int
    size: int = 0


class NetSpec:
    """A NetParameter under construction.

    The descriptor of LayerParameter tells whether a field belongs to the layer or to its
    ``*_param``. Layer types, fields and bottoms that Caffe 1.0 does not know are errors.
    """

    def __init__(self, name: str) -> None:
        self._net = messages.NetParameter(name=name)
        # The phases in which each name exists; None stands for both.
        self._tops: dict[str, set[str | None]] = {}
        self._layers: dict[str, set[str | None]] = {}

    def layer(
        self,
        layer_type: str,
        name: str,
        *bottoms: Top,
        channels: int,
        size: int = 0,
        in_place: bool = False,
        phase: str | None = None,
        **fields: Any,
    ) -> Top:
        """Adds a layer with one top, named like the layer, and returns that top.

        Args:
            layer_type: as registered in Caffe 1.0, e.g. ``Convolution``.
            name: of the layer; unique within its phase.
            bottoms: the tops that it reads.
            channels: of its top.
            size: height and width of its top.
            in_place: its top is its bottom.
            phase: ``TRAIN`` or ``TEST`` to include it in that phase only.
            fields: of the layer (``loss_weight``, ``param``) or of its ``*_param``: messages as
                dicts, enum values by name, repeated fields as lists.

        Raises:
            UsageError: an unknown type, field or bottom, or a name that exists.
        """
        top = bottoms[0].name if in_place else name
        self.layer_with_tops(layer_type, name, bottoms, [top], phase=phase, **fields)
        return Top(top, channels, size)

    def layer_with_tops(
        self,
        layer_type: str,
        name: str,
        bottoms: Sequence[Top],
        tops: Sequence[str],
        *,
        phase: str | None = None,
        **fields: Any,
    ) -> None:
        """Adds a layer with any number of tops; see :meth:`layer`."""
        if layer_type not in messages.LAYER_TYPES:
            raise UsageError(
                f"layer {name}: Caffe 1.0 has no layer type {layer_type!r}",
                did_you_mean(layer_type, messages.LAYER_TYPES),
            )
        _claim(self._layers, name, phase, "layer")
        needed = {"TRAIN", "TEST"} if phase is None else {phase}
        for bottom in bottoms:
            phases = self._tops.get(bottom.name, set())
            if None not in phases and not needed <= phases:
                raise UsageError(f"layer {name} reads {bottom.name!r}, which no layer produced")
        for top in tops:
            if top not in {bottom.name for bottom in bottoms}:
                _claim(self._tops, top, phase, "top")
        layer = self._net.layer.add(
            name=name,
            type=layer_type,
            bottom=[bottom.name for bottom in bottoms],
            top=list(tops),
        )
        if phase is not None:
            layer.include.add(phase=phase)
        for key, value in fields.items():
            _assign(_owner(layer, key), key, value)

    def to_proto(self) -> Any:
        """A copy of the NetParameter."""
        return messages.NetParameter.FromString(self._net.SerializeToString())


def _owner(layer: Any, key: str) -> Any:
    """The message that has the field ``key``: the layer or its ``*_param``."""
    if key in layer.DESCRIPTOR.fields_by_name:
        return layer
    param_field = messages.LAYER_TYPES[layer.type]
    known: list[str] = list(layer.DESCRIPTOR.fields_by_name)
    if param_field is not None:
        param = getattr(layer, param_field)
        if key in param.DESCRIPTOR.fields_by_name:
            return param
        known += list(param.DESCRIPTOR.fields_by_name)
    raise UsageError(
        f"layer {layer.name}: {layer.type} has no field {key!r}", did_you_mean(key, known)
    )


def _assign(message: Any, key: str, value: Any) -> None:
    """Sets a field from plain Python values."""
    field = message.DESCRIPTOR.fields_by_name[key]
    if field.full_name in messages.AFTER_TAG_1_0:
        raise UsageError(f"{field.full_name} is later than Caffe 1.0")
    is_message = field.message_type is not None
    try:
        if field.is_repeated:
            values = value if isinstance(value, list) else [value]
            if is_message:
                for item in values:
                    _fill(getattr(message, key).add(), item)
            else:
                getattr(message, key).extend(values)
        elif is_message:
            _fill(getattr(message, key), value)
        elif field.enum_type is not None and isinstance(value, str):
            setattr(message, key, field.enum_type.values_by_name[value].number)
        else:
            setattr(message, key, value)
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(f"{field.full_name} cannot be {value!r}") from error


def _fill(message: Any, values: Mapping[str, Any]) -> None:
    """Sets the fields of a message from a dict, which may be empty."""
    message.SetInParent()
    for key, value in values.items():
        if key not in message.DESCRIPTOR.fields_by_name:
            raise UsageError(
                f"{message.DESCRIPTOR.full_name} has no field {key!r}",
                did_you_mean(key, message.DESCRIPTOR.fields_by_name),
            )
        _assign(message, key, value)


def _claim(taken: dict[str, set[str | None]], name: str, phase: str | None, what: str) -> None:
    """Adds a name to a phase; refuses a name that exists in it."""
    phases = taken.setdefault(name, set())
    if None in phases or phase in phases or (phase is None and phases):
        raise UsageError(f"two {what}s are called {name!r}")
    phases.add(phase)
