"""The command train."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irv2caffe import ui
from irv2caffe.cli.build_net import told_options
from irv2caffe.cli.option_sections import SectionCommand, with_options
from irv2caffe.cli.train_options import TRAIN_OPTIONS, add_build_net_options
from irv2caffe.cli.train_output import from_another_shell, show_plan, show_result
from irv2caffe.cli.train_resume import refuse_mixed, to_resume
from irv2caffe.errors import EXIT_DONE, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from irv2caffe.caffe.find import FoundCaffe
    from irv2caffe.train.plan.plan import TrainOptions
    from irv2caffe.train.run.options import SessionOptions


@click.command("train", cls=SectionCommand, short_help="Train with Caffe, in a run folder.")
@with_options(TRAIN_OPTIONS)
def train_command(
    solver: Path | None,
    recipe: str | None,
    weights: tuple[Path, ...],
    resume: str | None,
    gpus: str | None,
    run_dir: Path | None,
    engine: str,
    flag: Path | None,
    docker: str | None,
    dry_run: bool,
    print_config: bool,
    smoke: bool,
    as_json: bool,
    **more: Any,
) -> int:
    """Train with Caffe and record the training in a run folder.

    The solver, nets, databases, GPUs and disk space are checked first. Ctrl-C or SIGTERM writes a
    snapshot and stops (exit code 130); a second one stops at once; SIGHUP writes a snapshot and
    continues. If Caffe crashes or stalls, it is restarted from the newest complete snapshot.

    With --recipe, all options of build-net are accepted too, also those not listed here.
    """
    asked = {name: more.pop(name) for name in ("status", "snapshot_now", "stop")}
    if any(asked.values()):
        return from_another_shell(asked, as_json)
    if engine == "torch":
        raise UsageError(
            "--engine torch: this version trains with Caffe only", "--engine caffe, or auto"
        )
    options = _session_options(more)
    train_options = _train_options(more, gpus=gpus or "none", weights=weights, run_dir=run_dir)
    refuse_mixed(solver, recipe, resume, weights)
    from irv2caffe.caffe.find import find_caffe

    if resume is not None:
        if smoke:
            raise UsageError("--resume does not go with --smoke")
        point, choices = to_resume(
            resume, solver, train_options, options, gpus=gpus, flag=flag, docker=docker
        )
        found = find_caffe(choices.caffe, docker=choices.docker)
        if point is None:
            if dry_run or print_config:
                raise UsageError("--resume RUN goes with neither --dry-run nor --print-config")
            return _train(None, found, choices.train_options, choices.options, as_json)
        solver, train_options, options = point.solver, choices.train_options, choices.options
    else:
        found = find_caffe(flag, docker=docker)
    with _solver(solver, recipe, found, train_options) as (path, told):
        if dry_run or print_config:
            return show_plan(path, found, told, as_json=as_json, config=print_config)
        if smoke:
            return _smoke(path, found, told, options, as_json)
        return _train(path, found, told, options, as_json)


def _session_options(more: dict[str, Any]) -> SessionOptions:
    from irv2caffe.train.run.options import SessionOptions

    stall = more.pop("stall_minutes")
    return SessionOptions(
        max_restarts=more.pop("max_restarts"),
        on_divergence=more.pop("on_divergence"),
        max_rollbacks=more.pop("max_rollbacks"),
        rollback_lr=more.pop("rollback_lr"),
        stall_s=None if stall is None else 60 * stall,
        snapshot_s=60 * more.pop("snapshot_minutes"),
        plot=more.pop("plot"),
    )


def _train_options(more: dict[str, Any], **values: Any) -> TrainOptions:
    from irv2caffe.train.plan.plan import TrainOptions

    return TrainOptions(
        keep_newest=more.pop("keep_snapshots"),
        keep_epochs=more.pop("keep_epochs"),
        ignore_findings=more.pop("ignore_findings"),
        given=told_options(more),
        **values,
    )


@contextmanager
def _solver(
    solver: Path | None, recipe: str | None, found: FoundCaffe, train_options: TrainOptions
) -> Iterator[tuple[Path, TrainOptions]]:
    """The solver that was given, or that of a recipe, built aside for as long as it is needed."""
    if solver is not None:
        yield solver, train_options
        return
    from irv2caffe.train.plan.recipe import build_recipe

    assert recipe is not None
    with tempfile.TemporaryDirectory(prefix="irv2caffe-") as folder:
        built = build_recipe(Path(folder), recipe, train_options.given, found, train_options.gpus)
        for line in built.net.warnings:
            ui.say(f"warning: {line}")
        yield (
            built.net.solver,
            replace(
                train_options,
                given={},
                values=built.values,
                origin=f"recipe {recipe}",
                databases=built.databases,
            ),
        )


def _smoke(
    solver: Path,
    found: FoundCaffe,
    train_options: TrainOptions,
    options: SessionOptions,
    as_json: bool,
) -> int:
    from irv2caffe.train.run.smoke_test import smoke

    report = smoke(solver, found, train_options, options, say=ui.say)
    if as_json:
        ui.show_json(report.as_dict())
    else:
        for line in report.text():
            ui.show(line)
    return EXIT_DONE


def _train(
    solver: Path | None,
    found: FoundCaffe,
    train_options: TrainOptions,
    options: SessionOptions,
    as_json: bool,
) -> int:
    from irv2caffe.train.run.launch import resume, train

    ui.say(f"Caffe: {found.name} ({found.reason})")
    with ui.status_line() as status:
        talk = {"say": _to_nobody_too(ui.say), "status": _to_nobody_too(status)}
        if solver is None:
            result = resume(found, train_options, options, **talk)
        else:
            result = train(solver, found, train_options, options, **talk)
    return show_result(result, as_json)


def _to_nobody_too(say: Callable[[str], None]) -> Callable[[str], None]:
    """The same, also when the terminal was closed meanwhile: the training goes on."""

    def quiet(text: str) -> None:
        with suppress(OSError):
            say(text)

    return quiet


add_build_net_options(train_command)
