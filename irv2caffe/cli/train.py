"""The command train."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from irv2caffe import ui
from irv2caffe.cli.build_net import given_options
from irv2caffe.cli.option_sections import SectionCommand, with_options
from irv2caffe.cli.train_engine import engine_request
from irv2caffe.cli.train_options import TRAIN_OPTIONS, add_build_net_options
from irv2caffe.cli.train_output import (
    from_another_shell,
    show_plan,
    show_result,
    show_smoke_result,
)
from irv2caffe.cli.train_resume import refuse_mixed, to_resume
from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from irv2caffe.train.engines.engine import Engine
    from irv2caffe.train.plan.select_engine import EngineRequest
    from irv2caffe.train.run.options import LaunchOptions


T = TypeVar("T")


@click.command(
    "train", cls=SectionCommand, short_help="Train with Caffe or PyTorch, in a run folder."
)
@with_options(TRAIN_OPTIONS)
def train_command(
    solver: Path | None,
    recipe: str | None,
    weights: tuple[Path, ...],
    resume: str | None,
    gpus: str | None,
    run_dir: Path | None,
    dry_run: bool,
    print_config: bool,
    smoke: bool,
    as_json: bool,
    **more: Any,
) -> int:
    """Train with Caffe, or with PyTorch as Caffe does; all results go into a run folder.

    The solver, nets, databases, GPUs and disk space are checked first. Ctrl-C or SIGTERM writes a
    snapshot and stops (exit code 130); a second one stops at once; SIGHUP writes a snapshot and
    continues. After a crash or a stall the newest complete snapshot is continued.

    With --recipe, all options of build-net are accepted, listed here or not.
    """
    asked = {name: more.pop(name) for name in ("status", "snapshot_now", "stop")}
    if any(run is not None for run in asked.values()):
        return from_another_shell(asked, as_json)
    request = engine_request(more, gpus, recipe)
    options = _options(more, request, weights, run_dir)
    refuse_mixed(solver, recipe, resume, weights)
    point = None
    if resume is not None:
        if smoke:
            raise UsageError("--resume does not go with --smoke")
        point, options = to_resume(resume, solver, options)
    from irv2caffe.train.plan.select_engine import select_engine

    engine = select_engine(options.engine)
    if resume is not None and point is None:
        if dry_run or print_config:
            raise UsageError("--resume RUN goes with neither --dry-run nor --print-config")
        return _train(None, engine, options, as_json)
    solver = point.solver if point is not None else solver
    with _solver(solver, recipe, engine, options) as (path, options):
        if dry_run or print_config:
            train_options = options.train_options
            return show_plan(path, engine, train_options, as_json=as_json, config=print_config)
        if smoke:
            from irv2caffe.train.run.smoke_test import run_smoke_test

            result = run_smoke_test(
                path, engine, options.train_options, options.supervision, say=ui.say
            )
            return show_smoke_result(result, as_json)
        return _train(path, engine, options, as_json)


def _options(
    more: dict[str, Any],
    engine: EngineRequest,
    weights: tuple[Path, ...],
    run_dir: Path | None,
) -> LaunchOptions:
    """The options of the library, from those of the command line."""
    from irv2caffe.train.plan.plan import TrainOptions
    from irv2caffe.train.run.options import LaunchOptions, SupervisionOptions

    stall = more.pop("stall_minutes")
    supervision = SupervisionOptions(
        max_restarts=more.pop("max_restarts"),
        on_divergence=more.pop("on_divergence"),
        max_rollbacks=more.pop("max_rollbacks"),
        rollback_lr=more.pop("rollback_lr"),
        stall_s=None if stall is None else 60 * stall,
        snapshot_s=60 * more.pop("snapshot_minutes"),
        plot=more.pop("plot"),
    )
    train_options = TrainOptions(
        gpus=engine.gpus,
        weights=weights,
        run_dir=run_dir,
        keep_newest=more.pop("keep_snapshots"),
        keep_epochs=more.pop("keep_epochs"),
        ignore_findings=more.pop("ignore_findings"),
        best=more.pop("best"),
        given=given_options(more),
    )
    return LaunchOptions(train_options, supervision, engine)


@contextmanager
def _solver(
    solver: Path | None, recipe: str | None, engine: Engine, options: LaunchOptions
) -> Iterator[tuple[Path, LaunchOptions]]:
    """The given solver, or that of a recipe, in a temporary folder."""
    if solver is not None:
        yield solver, options
        return
    from irv2caffe.train.plan.recipe import build_recipe

    assert recipe is not None
    given = options.train_options
    with tempfile.TemporaryDirectory(prefix="irv2caffe-") as folder:
        built = build_recipe(Path(folder), recipe, given.given, engine, given.gpus, given.weights)
        for line in (*built.notes, *(f"warning: {line}" for line in built.net.warnings)):
            ui.say(line)
        train_options = replace(
            given,
            given={},
            values=built.values,
            origin=f"recipe {recipe}",
            databases=built.databases,
        )
        yield built.net.solver, replace(options, train_options=train_options)


def _train(solver: Path | None, engine: Engine, options: LaunchOptions, as_json: bool) -> int:
    """Trains with a solver, or resumes a run without one."""
    from irv2caffe.train.run.launch import resume, train

    ui.say(f"engine {engine.name}: {engine.why}")
    ui.say(f"program {engine.program} ({engine.reason})")
    train_options, supervision = options.train_options, options.supervision
    with ui.status_panel() as status:
        say, show = _ignore_closed_terminal(ui.say), _ignore_closed_terminal(status)
        if solver is None:
            result = resume(engine, train_options, supervision, say=say, status=show)
        else:
            result = train(solver, engine, train_options, supervision, say=say, status=show)
    return show_result(result, as_json)


def _ignore_closed_terminal(show: Callable[[T], None]) -> Callable[[T], None]:
    """The same function, without errors if the terminal was closed: the training goes on."""

    def show_if_open(what: T) -> None:
        with suppress(OSError):
            show(what)

    return show_if_open


add_build_net_options(train_command)
