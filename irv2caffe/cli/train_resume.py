"""train --resume: what it names, and what a resumed run was told in its time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from irv2caffe import ui
from irv2caffe.errors import InputError, UsageError

if TYPE_CHECKING:
    from irv2caffe.train.plan.plan import TrainOptions
    from irv2caffe.train.run.earlier_options import Choices
    from irv2caffe.train.run.options import SupervisionOptions
    from irv2caffe.train.run.starting_point import StartingPoint

# Options that a resumed run remembers under another name.
_FIELDS = {
    "stall_minutes": "stall_s",
    "snapshot_minutes": "snapshot_s",
    "keep_snapshots": "keep_newest",
}


def refuse_mixed(
    solver: Path | None, recipe: str | None, resume: str | None, weights: tuple[Path, ...]
) -> None:
    """Refuses options of which only one can say what is trained.

    Raises:
        UsageError, InputError: these.
    """
    if resume is not None:
        if recipe is not None:
            raise UsageError(
                "--resume goes on with a solver, and --recipe makes a new one",
                "--solver FILE with --resume names another solver",
            )
        if len(weights) > 1:
            raise UsageError("--resume with --weights: one file, the model of the solver state")
        return
    if solver is not None and recipe is not None:
        raise UsageError("--solver and --recipe: one or the other")
    if solver is None and recipe is None:
        raise UsageError("--solver FILE is missing", "irv2caffe build-net writes one; or --recipe")
    for path in weights:
        if path.name.endswith((".solverstate", ".solverstate.h5")):
            raise InputError(
                f"--weights {path}: a .solverstate goes to --resume",
                f"--resume {path} in its place goes on from there; --weights takes the "
                ".caffemodel beside it and begins at iteration 0",
            )


def to_resume(
    resume: str,
    solver: Path | None,
    train_options: TrainOptions,
    options: SupervisionOptions,
    *,
    gpus: str | None,
    flag: Path | None,
    docker: str | None,
) -> tuple[StartingPoint | None, Choices]:
    """With what a new run begins, or None where a run folder goes on itself; and how."""
    from irv2caffe.train.run.earlier_options import Choices
    from irv2caffe.train.run.starting_point import find_starting_point, run_of

    named, told_dir = Path(resume) if resume else None, train_options.run_dir
    point = find_starting_point(
        named,
        run_dir=told_dir,
        solver=solver,
        model=train_options.weights[0] if train_options.weights else None,
        say=ui.say,
    )
    train_options = replace(
        train_options, weights=(), run_dir=train_options.run_dir if named is not None else None
    )
    if point is None:
        run: Path | None = run_of(named, told_dir)
        train_options = replace(train_options, run_dir=run)
    else:
        run = point.run
        # A run's own solver names its nets where they lay when it was made.
        moved = run is not None and solver is None
        train_options = replace(train_options, snapshot=point.pair, moved=moved)
    if run is None:
        return point, Choices(train_options, options, flag, docker)
    return point, _as_before(run, train_options, options, gpus=gpus, flag=flag, docker=docker)


def _as_before(
    run: Path,
    train_options: TrainOptions,
    options: SupervisionOptions,
    *,
    gpus: str | None,
    flag: Path | None,
    docker: str | None,
) -> Choices:
    """What a resumed run was told in its time, where it is not told otherwise now."""
    from irv2caffe.train.run.earlier_options import with_earlier_options

    context = click.get_current_context()
    told = {
        _FIELDS.get(name, name)
        for name in context.params
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    return with_earlier_options(
        run, train_options, options, told, gpus=gpus, caffe=flag, docker=docker
    )
