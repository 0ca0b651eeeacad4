"""Selects the layers of a net in a phase, as Caffe's Net::FilterNet does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from irv2caffe.errors import NetError
from irv2caffe.proto import messages
from irv2caffe.shapes.upgrade import Upgraded, upgraded

if TYPE_CHECKING:
    from collections.abc import Iterable

Phase = Literal["TRAIN", "TEST"]


def select(net: Any, phase: Phase, *, level: int | None = None, stages: Iterable[str] = ()) -> Any:
    """The upgraded net of a phase, without the layers excluded by their rules.

    Args:
        net: a NetParameter; it is not changed.
        phase: ``TRAIN`` or ``TEST``.
        level: of the NetState; None takes the net's own.
        stages: of the NetState, added to the net's own.

    Returns:
        A NetParameter with ``layer`` only.

    Raises:
        NetError: a layer with both include and exclude rules, or what Caffe cannot upgrade.
    """
    return selected(net, phase, level=level, stages=stages).net


def selected(
    net: Any, phase: Phase, *, level: int | None = None, stages: Iterable[str] = ()
) -> Upgraded:
    """Like :func:`select`, with the origin of each layer and notes of what was dropped."""
    upgraded_net = upgraded(net)
    net = upgraded_net.net
    net.state.phase = {"TRAIN": messages.TRAIN, "TEST": messages.TEST}[phase]
    if level is not None:
        net.state.level = level
    net.state.stage.extend(stages)
    layers = list(net.layer)
    del net.layer[:]
    origins: list[int | None] = []
    for layer, origin in zip(layers, upgraded_net.origins, strict=True):
        if _is_included(layer, net.state):
            net.layer.add().CopyFrom(layer)
            origins.append(origin)
    return Upgraded(net, tuple(origins), upgraded_net.notes)


def _is_included(layer: Any, state: Any) -> bool:
    if layer.include and layer.exclude:
        raise NetError(
            f"layer {layer.name!r}: both include and exclude rules; Caffe takes one of them",
            layer=layer.name,
        )
    if layer.include:
        return any(_meets(state, rule) for rule in layer.include)
    return not any(_meets(state, rule) for rule in layer.exclude)


def _meets(state: Any, rule: Any) -> bool:
    """Whether a NetState meets all conditions of a NetStateRule."""
    stages = set(state.stage)
    return not (
        (rule.HasField("phase") and rule.phase != state.phase)
        or (rule.HasField("min_level") and state.level < rule.min_level)
        or (rule.HasField("max_level") and state.level > rule.max_level)
        or not set(rule.stage) <= stages
        or set(rule.not_stage) & stages
    )
