"""Checks the models that a training starts from, as Caffe copies them: layer by layer, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.errors import (
    FormatError,
    InputError,
    Irv2CaffeError,
    MissingInputError,
    NetError,
    first_of,
)
from irv2caffe.proto.snapshot_headers import ModelHeader, read_model_header
from irv2caffe.train.plan.estimate import phase_shapes
from irv2caffe.train.plan.job import collected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from irv2caffe.shapes.infer import LayerInfo
    from irv2caffe.train.plan.plan import Plan

_MOST_NAMED = 5


def check_weights(plan: Plan, problems: list[Irv2CaffeError]) -> list[str]:
    """Checks ``--weights``; returns notes on the layers that take weights from them, and on others.

    Args:
        plan: the plan.
        problems: files that are no models are added; check compares the shapes.
    """
    layers = _layers(plan)
    notes: list[str] = []
    known: set[str] = set()
    for path in plan.options.weights:
        with collected(problems):
            theirs = {each.definition.name for each in _read(path).layers if each.shapes}
            known |= theirs
            notes += _notes(plan, path, theirs)
    if plan.options.snapshot is None and not plan.options.moved:
        notes += _fillers(layers, known, has_weights=bool(plan.options.weights))
    return notes


def _layers(plan: Plan) -> dict[str, LayerInfo]:
    """The layers of the training net with weights; empty where the net has unknown layers."""
    if not plan.job.nets:
        return {}
    known = [use for use in plan.databases if use.database.channels is not None]
    try:
        shapes = phase_shapes(plan.job.train_net, "TRAIN", known)
    except NetError:  # an error of its own, or a net that only Caffe knows
        return {}
    return {layer.name: layer for layer in shapes.layers if layer.params}


def _read(path: Path) -> ModelHeader:
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file", "--weights takes a .caffemodel")
    if "," in str(path):
        raise InputError(f"--weights {path}: Caffe takes a comma for the next file", "rename it")
    try:
        return read_model_header(path)
    except FormatError as error:
        hint = error.hint if "--" in error.hint else "it takes a whole .caffemodel"
        raise InputError(f"--weights {error.message}", hint) from error


def _notes(plan: Plan, path: Path, theirs: set[str]) -> Iterator[str]:
    """The number of layers that take weights, and the names of those that this net lacks.

    Raises:
        InputError: no layer of the net has the name of one in the file.
    """
    if not plan.job.nets:
        return
    ours = {layer.name for layer in plan.job.train_net.layer}
    if not theirs & ours:
        raise InputError(
            f"--weights {path}: none of its layers has the name of a layer of this net",
            "Caffe copies weights by layer name; irv2caffe summary lists the names",
        )
    yield f"weights of {len(theirs & ours)} layers come from {path}"
    others = sorted(theirs - ours)
    if others:
        yield f"layers of it that are not in this net: {first_of(others, _MOST_NAMED)}"


def _fillers(layers: dict[str, LayerInfo], known: set[str], *, has_weights: bool) -> Iterator[str]:
    """Layers that start from their fillers: all of a new net, but never frozen ones."""
    new = [layer for name, layer in layers.items() if name not in known]
    learning = [layer.name for layer in new if layer.num_params > layer.num_frozen]
    frozen = [layer.name for layer in new if 0 < layer.num_params == layer.num_frozen]
    if has_weights and learning:
        yield f"start from their fillers: {first_of(learning, _MOST_NAMED)}"
    if frozen:
        where = "in no --weights" if has_weights else "there are no --weights"
        yield (
            f"warning: frozen layers that start from random weights, since {where}: "
            f"{first_of(frozen, _MOST_NAMED)}"
        )
