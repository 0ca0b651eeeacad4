"""Cures: the commands, or fields of a solver, that change the settings of a run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence

SHUFFLE = "irv2caffe make-lmdb IMAGES OUT --shuffle"
SCALE = "irv2caffe build-net --out net --residual-scale 0.17,0.1,0.2"
_OPTIONS = {"type": "--solver-type"}
_TEXTS = frozenset({"type", "lr_policy"})


def start_again(evidence: RunEvidence, **values: float | str) -> str:
    """How to train anew with other values of the solver's fields, which are options of train."""
    if evidence.solver_path is None:
        return f"start again with {fields(**values)} in the solver"
    path = shlex.quote(str(evidence.solver_path))
    return f"irv2caffe train --solver {path} {_options(values)}"


def go_on(evidence: RunEvidence, **values: float | str) -> str:
    """How to continue the run with other values of the solver's fields."""
    if evidence.run_dir is None:
        return f"resume from the last good snapshot with {fields(**values)} in the solver"
    return f"irv2caffe train --resume {shlex.quote(str(evidence.run_dir))} {_options(values)}"


def fields(**values: float | str) -> str:
    """Fields as in a prototxt."""
    return ", ".join(
        f'{name}: "{value}"' if name in _TEXTS else f"{name}: {_text(value)}"
        for name, value in values.items()
    )


def _options(values: dict[str, float | str]) -> str:
    return " ".join(
        f"{_OPTIONS.get(name, '--' + name.replace('_', '-'))} {_text(value)}"
        for name, value in values.items()
    )


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def diagnose_with_model(evidence: RunEvidence) -> str:
    """The command that runs the tests of the last model."""
    source = shlex.quote(str(evidence.run_dir or evidence.name))
    if evidence.run_dir is not None:
        command = f"irv2caffe diagnose {source} --model last"
        has_model = any((evidence.run_dir / "snapshots").glob("*.caffemodel*"))
        return command if has_model else f"a snapshot, which the run has not; then {command}"
    solver = "" if evidence.check else " --solver SOLVER"
    return f"irv2caffe diagnose {source}{solver} --model MODEL.caffemodel"


def evaluate(evidence: RunEvidence, options: str) -> str:
    """The command that evaluates the run's model."""
    source = shlex.quote(str(evidence.run_dir)) if evidence.run_dir else "MODEL.caffemodel"
    return f"irv2caffe evaluate {source} {options}"


def train_with(evidence: RunEvidence, options: str) -> str:
    """The command that trains anew with the run's solver and some options."""
    path = shlex.quote(str(evidence.solver_path)) if evidence.solver_path else "SOLVER"
    return f"irv2caffe train --solver {path} {options}"


def augment(evidence: RunEvidence) -> tuple[str, str]:
    """The commands that vary the training images, in the engine or in the database."""
    return (
        train_with(evidence, "--engine torch --augment inception --shuffle"),
        "irv2caffe make-lmdb IMAGES OUT --augment inception --copies 5",
    )


def relabel(evidence: RunEvidence) -> str:
    """The command that gives validation images the labels of the training."""
    return f"irv2caffe make-lmdb VAL_IMAGES OUT --labels {database(evidence, 'TRAIN')}"


def check_files(evidence: RunEvidence) -> str:
    """The command that checks the files of the run with its databases."""
    path = shlex.quote(str(evidence.solver_path)) if evidence.solver_path else "SOLVER"
    return f"irv2caffe check {path} --train-lmdb DB --val-lmdb DB"


def database(evidence: RunEvidence, phase: str) -> str:
    """The database that a phase reads, for a command."""
    net = evidence.net(phase)
    name = net.data_layers[0].source if net is not None and net.data_layers else ""
    return shlex.quote(name) if name and name.isprintable() else f"{phase}_LMDB"
