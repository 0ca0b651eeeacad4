"""train --resume: the snapshot that it names, and the options of the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from irv2caffe import ui
from irv2caffe.errors import InputError, UsageError

if TYPE_CHECKING:
    from irv2caffe.train.run.options import LaunchOptions
    from irv2caffe.train.run.starting_point import StartingPoint


def refuse_mixed(
    solver: Path | None, recipe: str | None, resume: str | None, weights: tuple[Path, ...]
) -> None:
    """Refuses options that exclude each other.

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
    resume: str, solver: Path | None, given: LaunchOptions
) -> tuple[StartingPoint | None, LaunchOptions]:
    """The snapshot that a new run starts from, or None if a run folder is resumed; the options.

    Args:
        resume: the value of ``--resume``; empty means the latest run.
        solver: the value of ``--solver``.
        given: the options of the command line.
    """
    from irv2caffe.train.run.options import with_earlier_options
    from irv2caffe.train.run.starting_point import ResumeRequest, find_starting_point

    train_options = given.train_options
    model = train_options.weights[0] if train_options.weights else None
    named = Path(resume) if resume else None
    request = ResumeRequest(named, train_options.run_dir, solver, model)
    point = find_starting_point(request, ui.say)
    train_options = replace(train_options, weights=())
    if point is None:
        run: Path | None = request.run
        train_options = replace(train_options, run_dir=run)
    else:
        run = point.run
        # A run's own solver names its nets where they lay when it was made.
        moved = run is not None and solver is None
        run_dir = train_options.run_dir if named is not None else None
        train_options = replace(train_options, run_dir=run_dir, snapshot=point.pair, moved=moved)
    options = replace(given, train_options=train_options)
    return point, options if run is None else with_earlier_options(run, options, _given_fields())


def _given_fields() -> set[str]:
    """The fields of options that this command line gives."""
    from irv2caffe.train.run.options import COMMAND_LINE_NAMES

    fields = {option: field for field, option in COMMAND_LINE_NAMES.items()}
    context = click.get_current_context()
    return {
        fields.get(name, name)
        for name in context.params
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
