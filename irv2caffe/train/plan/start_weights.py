"""Checks the weights that a training starts from, and says which layers take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.errors import FormatError, InputError, MissingInputError, first_of
from irv2caffe.proto.snapshot_headers import read_model_header
from irv2caffe.train.run_dir.snapshots import net_differences

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from irv2caffe.proto.snapshot_headers import LayerHeader
    from irv2caffe.train.plan.plan import Plan

_NAMED = 3
# Beside losses: layers that have the batch size, or are of one phase.
_PHASE_LAYERS = frozenset(("Accuracy", "Reshape"))
# Types whose layers have weights in any case; Scale and Bias may take them from a bottom.
_LEARNED = frozenset(
    ("Convolution", "Deconvolution", "InnerProduct", "Embed", "BatchNorm", "PReLU", "LSTM", "RNN")
)


def check_weights(plan: Plan, path: Path) -> list[str]:
    """Checks a model to start from; returns notes on the layers that the net takes from it.

    Raises:
        InputError: not a model, or none of its layers has the name of a layer of the net.
        MissingInputError: no such file.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file", "--weights takes a .caffemodel")
    if "," in str(path):
        raise InputError(f"--weights {path}: Caffe takes a comma for the next file", "rename it")
    try:
        outline = read_model_header(path)
    except FormatError as error:
        hint = error.hint if "--" in error.hint else "it takes a whole .caffemodel"
        raise InputError(f"--weights {error.message}", hint) from error
    if not plan.job.nets:
        return []
    net = plan.job.train_net
    theirs = [layer.definition.name for layer in outline.layers if layer.shapes]
    ours = {layer.name for layer in net.layer}
    copied = [name for name in theirs if name in ours]
    if not copied:
        raise InputError(
            f"--weights {path}: none of its layers has the name of a layer of this net",
            "Caffe copies weights by layer name; irv2caffe summary lists the names",
        )
    lines = [f"weights of {len(copied)} layers come from {path}"]
    new = [each.name for each in net.layer if each.type in _LEARNED and each.name not in theirs]
    if new:
        lines.append(f"new, with weights of their fillers: {first_of(new, _NAMED)}")
    unused = [name for name in theirs if name not in ours]
    if unused:
        lines.append(f"not taken from {path.name}: {first_of(unused, _NAMED)}")
    if not outline.is_old:
        changed = [
            difference
            for difference in net_differences(outline.layers, _comparable(net, outline.layers))
            if "changed" in difference
        ]
        if changed:
            lines.append(f"warning: {path} differs from the net: {first_of(changed, _NAMED)}")
    return lines


def frozen_fillers(plan: Plan) -> list[str]:
    """A warning for frozen layers of a training without weights, which stay random."""
    if plan.options.weights or plan.options.snapshot is not None or plan.options.moved:
        return []
    frozen = [
        layer.name
        for layer in plan.job.train_net.layer
        if layer.type in _LEARNED - {"BatchNorm"}
        and layer.param
        and all(spec.lr_mult == 0 for spec in layer.param)
    ]
    if not frozen:
        return []
    named = first_of(frozen, _NAMED)
    return [f"warning: frozen layers keep the random weights of their fillers: {named}; --weights"]


def _comparable(net: Any, layers: Iterable[LayerHeader]) -> Any:
    """The net without what may differ from the net that the weights were trained in.

    Data, losses, and the statistics that BatchNorm takes in training do not change what weights
    mean.
    """
    theirs = {layer.definition.name: layer.definition for layer in layers}
    made = type(net)()
    for layer in net.layer:
        if not layer.bottom or layer.type in _PHASE_LAYERS or "Loss" in layer.type:
            continue
        kept = made.layer.add()
        kept.CopyFrom(layer)
        if layer.type == "BatchNorm" and layer.name in theirs:
            kept.batch_norm_param.CopyFrom(theirs[layer.name].batch_norm_param)
            if kept.batch_norm_param.eps != layer.batch_norm_param.eps:
                kept.batch_norm_param.eps = layer.batch_norm_param.eps
    return made
