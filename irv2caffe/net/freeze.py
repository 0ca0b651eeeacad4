"""Freezes the layers of a net up to a stage."""

from __future__ import annotations

import re
from typing import Any

from irv2caffe.errors import UsageError, did_you_mean

_FOLLOWERS = re.compile(r"_(bn|scale|relu|pool)$")
# Blocks of one family are a stage, as in irv2caffe summary: 10 x Repeat/block35.
_FAMILY = re.compile(r"(Repeat(?:_\d)?/block\d+)_\d+$|(stem)\d|([abc])\d+$|(Conv2d_2)[ab]_3x3$")
_HEADS = ("AuxLogits/", "aux_loss")
_FROZEN = {"lr_mult": 0.0, "decay_mult": 0.0}


def freeze(net: Any, stage: str) -> None:
    """Sets ``lr_mult: 0`` on all weights up to a stage, and keeps BatchNorm's statistics there.

    ``use_global_stats: true`` makes BatchNorm use the running statistics in training, and leave
    them alone (batch_norm_layer.cpp, Forward_cpu). Caffe then computes no gradient below the first
    layer that learns (net.cpp, Net::Init: ``need_backward``), which ``propagate_down`` could not
    save either.

    Args:
        net: a train_val NetParameter of this package; changed in place.
        stage: name of a stage as ``irv2caffe summary`` shows it, or of one of its blocks.

    Raises:
        UsageError: no such stage, or none that is followed by weights to learn.
    """
    names = [layer.name for layer in net.layer]
    trunk = [place for place, name in enumerate(names) if not name.startswith(_HEADS)]
    end = names.index("pool")  # the classifier follows
    trunk = [place for place in trunk if place <= end and net.layer[place].bottom]
    ends = {name: place for place in trunk for name in _stages_of(names[place])}
    if stage not in ends:
        stages = dict.fromkeys(_stages_of(names[place])[0] for place in trunk)
        raise UsageError(
            f"--freeze {stage[:100]!r}: this network has no such stage before its classifier",
            did_you_mean(stage, ends) or f"stages: {', '.join(stages)}",
        )
    for place in trunk:
        if place <= ends[stage]:
            _freeze_layer(net.layer[place])


def _stages_of(layer: str) -> tuple[str, str]:
    """The stage and the block that a layer belongs to."""
    parts = layer.split("/")
    block = _FOLLOWERS.sub("", "/".join(parts[: 2 if parts[0].startswith("Repeat") else 1]))
    family = _FAMILY.match(block)
    return next(filter(None, family.groups())) if family else block, block


def _freeze_layer(layer: Any) -> None:
    if layer.type == "BatchNorm":
        layer.batch_norm_param.use_global_stats = True
        return
    bias = {
        "Convolution": layer.convolution_param.bias_term,
        "Scale": layer.scale_param.bias_term,
    }
    if layer.type in bias and len(layer.bottom) == 1:
        del layer.param[:]
        for _ in range(1 + bias[layer.type]):
            layer.param.add(**_FROZEN)
