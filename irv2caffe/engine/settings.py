"""The settings of a layer as plain Python values, which torch.compile can follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.proto.messages import LAYER_TYPES

_MORE_PARAMS = {
    "Clip": ("clip_param",),
    "InfogainLoss": ("loss_param",),
    "SoftmaxWithLoss": ("softmax_param",),
    "Swish": ("swish_param",),
}


class Settings:
    """The fields of messages: enum values by name, repeated fields as tuples, others as they are.

    Attributes:
        given: names of the fields that the file sets.
    """

    given: frozenset[str]

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, *messages: Any) -> None:
        given: set[str] = set()
        for message in messages:
            given.update(field.name for field, _ in message.ListFields())
            for field in message.DESCRIPTOR.fields:
                setattr(self, field.name, _plain(field, getattr(message, field.name)))
        self.given = frozenset(given)


UNREAD = Settings()
"""Of a layer that is being made."""


def _plain(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return value  # fillers and shapes, which only the set-up of a layer reads
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return tuple(value) if hasattr(value, "extend") else value


def settings_of(proto: Any) -> Settings:
    """The settings in the ``*_param`` messages that the layer type of a LayerParameter reads."""
    main = LAYER_TYPES.get(proto.type)
    names = ((main,) if main else ()) + _MORE_PARAMS.get(proto.type, ())
    return Settings(*(getattr(proto, name) for name in names))
