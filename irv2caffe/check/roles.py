"""Determines the phases of a net without a solver: training, testing, both, or deployment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.proto import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from irv2caffe.check.evidence import PhaseNet, PrototxtFile

_NetState = messages.message_class("NetState")
_MAX_STAGES = 16
_TRAIN_WORDS = frozenset({"train", "training", "trainval"})
_TEST_WORDS = frozenset({"test", "testing", "val", "valid", "validation", "deploy", "eval"})


def nets_without_solver(file: PrototxtFile, make: Callable[..., PhaseNet]) -> Iterator[PhaseNet]:
    """The phases of a net that have data layers or inputs.

    If the same layers feed both phases, the net is one file of a train and test pair, or a deploy
    net, and has one phase.

    Args:
        file: the net.
        make: returns the net of a phase and a NetState.
    """
    stages = _stages(file)
    train, test = _in_some_stage(make, "TRAIN", stages), _in_some_stage(make, "TEST", stages)
    fed = [net for net in (train, test) if _input_layers(net)]
    if len(fed) == 2 and _input_layers(train) == _input_layers(test):
        yield test if not has_loss(train) or _is_test_file(file, test) else train
        return
    learns = has_loss(train)
    yield from (net for net in fed if net is test or learns)
    if not fed or (fed == [train] and not learns):
        yield train if learns else test


def _in_some_stage(make: Callable[..., PhaseNet], phase: str, stages: list[str]) -> PhaseNet:
    """The net of a phase without a stage, or in the first stage that gives it data."""
    plain = make(phase)
    if _input_layers(plain):
        return plain
    in_stages = (make(phase, _NetState(stage=[stage])) for stage in stages)
    return next(filter(_input_layers, in_stages), plain)


def _stages(file: PrototxtFile) -> list[str]:
    """Stages that include rules name; a limited number, since each costs time."""
    layers = [*file.message.layer, *file.message.layers]
    stages = (stage for layer in layers for rule in layer.include for stage in rule.stage)
    return list(dict.fromkeys(stages))[:_MAX_STAGES]


def _input_layers(net: PhaseNet) -> set[int]:
    """Offsets in the file of the layers that have tops and no bottoms."""
    return {
        layer.node.start
        for layer in net.layers
        if layer.message.top and not layer.message.bottom and layer.type != "Parameter"
    }


def _is_test_file(file: PrototxtFile, net: PhaseNet) -> bool:
    """Whether a net with a loss is the test file of a pair, by its settings or its file name."""
    norms = [layer.message.batch_norm_param for layer in net.of_type("BatchNorm")]
    flags = [norm.use_global_stats for norm in norms if norm.HasField("use_global_stats")]
    if not all(flags) or any(_augments(layer.message) for layer in net.layers):
        return False
    if flags and len(flags) == len(norms):
        return True
    words = re.split(r"[^a-z]+", Path(file.name).stem.lower())
    parts = {word.removesuffix("net") for word in words}
    return bool(parts & _TEST_WORDS) and not parts & _TRAIN_WORDS


def _augments(layer: Any) -> bool:
    return bool(layer.transform_param.mirror or layer.image_data_param.shuffle)


def is_tested(net: PhaseNet) -> bool:
    """Whether a layer of the file is included in the TEST phase only."""
    message = net.file.message
    rules = (rule for layer in [*message.layer, *message.layers] for rule in layer.include)
    return any(rule.HasField("phase") and rule.phase == messages.TEST for rule in rules)


def has_loss(net: PhaseNet) -> bool:
    """Whether a layer of the net is a loss."""
    return any(
        layer.type.endswith("Loss") or any(layer.message.loss_weight) for layer in net.layers
    )
