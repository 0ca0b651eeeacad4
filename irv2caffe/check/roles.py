"""What a net is for: to train, to test, one half of a pair, or made for use."""

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
    """The phases a net is made for: those that something feeds.

    Where the same layers feed both, it is the half of a pair, or made for use: one phase then.
    """
    stages = _stages(file)
    train, test = _some_stage(make, "TRAIN", stages), _some_stage(make, "TEST", stages)
    fed = [net for net in (train, test) if _feeders(net)]
    if len(fed) == 2 and _feeders(train) == _feeders(test):
        yield test if not has_loss(train) or _is_test_half(file, test) else train
        return
    learns = has_loss(train)
    yield from (net for net in fed if net is test or learns)
    if not fed or (fed == [train] and not learns):
        yield train if learns else test


def _some_stage(make: Callable[..., PhaseNet], phase: str, stages: list[str]) -> PhaseNet:
    """The net of a phase; where nothing feeds it but in a stage that a solver asks for, of that."""
    plain = make(phase)
    if _feeders(plain):
        return plain
    for stage in stages:
        net = make(phase, _NetState(stage=[stage]))
        if _feeders(net):
            return net
    return plain


def _stages(file: PrototxtFile) -> list[str]:
    """Stages that the rules of the layers ask for; so many that it costs no time."""
    layers = [*file.message.layer, *file.message.layers]
    stages = (stage for layer in layers for rule in layer.include for stage in rule.stage)
    return list(dict.fromkeys(stages))[:_MAX_STAGES]


def _feeders(net: PhaseNet) -> set[int]:
    """Where the layers stand that make something of nothing."""
    return {
        layer.node.start
        for layer in net.layers
        if layer.message.top and not layer.message.bottom and layer.type != "Parameter"
    }


def _is_test_half(file: PrototxtFile, net: PhaseNet) -> bool:
    """Whether a net with a loss is the test half of a pair: by its settings, else by its name."""
    norms = [layer.message.batch_norm_param for layer in net.of_type("BatchNorm")]
    said = [norm.use_global_stats for norm in norms if norm.HasField("use_global_stats")]
    if not all(said) or any(_augments(layer.message) for layer in net.layers):
        return False
    if said and len(said) == len(norms):
        return True
    words = {
        word.removesuffix("net") for word in re.split(r"[^a-z]+", Path(file.name).stem.lower())
    }
    return bool(words & _TEST_WORDS) and not words & _TRAIN_WORDS


def _augments(layer: Any) -> bool:
    """Whether a data layer does what only training wants."""
    return bool(layer.transform_param.mirror or layer.image_data_param.shuffle)


def is_tested(net: PhaseNet) -> bool:
    """Whether the file of a training net has a part of its own for tests."""
    message = net.file.message
    rules = (rule for layer in [*message.layer, *message.layers] for rule in layer.include)
    return any(rule.HasField("phase") and rule.phase == messages.TEST for rule in rules)


def has_loss(net: PhaseNet) -> bool:
    """Whether a layer of the net has something to minimise."""
    return any(
        layer.type.endswith("Loss") or any(layer.message.loss_weight) for layer in net.layers
    ) or any(net.of_type("SoftmaxWithLoss"))
