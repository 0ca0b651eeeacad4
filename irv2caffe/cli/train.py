"""The train command."""

from __future__ import annotations

import copy
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irv2caffe import ui
from irv2caffe.cli.build_net import build_net_command, told_options
from irv2caffe.cli.help import Command, Option, section
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

    from irv2caffe.caffe.find import FoundCaffe
    from irv2caffe.train.run.options import LaunchOptions

_what = section("What to train")
_where = section("Where")
_first = section("Before the start")
_snapshots = section("Snapshots")
_care = section("When something goes wrong")
_shells = section("From another shell")
_other = section("Other")
_OVER = "Over the solver's values"
# build-net's options that are shown in the help; the others are in build-net's help.
_SHOWN = (
    "train_lmdb", "val_lmdb", "epochs", "batch_size", "test_batch_size", "iter_size", "type",
    "base_lr", "lr_decay", "lr_decay_epochs", "momentum", "rms_decay", "delta", "weight_decay",
    "clip_gradients", "test_epochs", "snapshot_epochs", "random_seed",
)  # fmt: skip
_TAKEN_SECTIONS = {"Data", "Network", "Training"}
_OWN = {"gpus", "num_train_images", "num_val_images"}
_LATEST = "runs/latest"


def _with_build_options(command: click.Command) -> click.Command:
    """Adds build-net's options, which override the values of a solver or a recipe."""
    for parameter in build_net_command.params:
        if not isinstance(parameter, Option):
            continue
        if parameter.section in _TAKEN_SECTIONS and parameter.name not in _OWN:
            taken = copy.copy(parameter)
            taken.section = _OVER
            taken.hidden = parameter.name not in _SHOWN
            command.params.append(taken)
    return command


@click.command("train", cls=Command, short_help="Train with the real Caffe, in a run folder.")
@_what("--solver", type=click.Path(path_type=Path), help="Solver prototxt; names the net.")
@_what("--recipe", help="Or build the nets of a recipe, for --train-lmdb and --val-lmdb.")
@_what(
    "--weights", type=click.Path(path_type=Path), multiple=True, help="Start from this .caffemodel."
)
@_what(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[WHAT]",
    help=f"Go on with a run folder [{_LATEST}], another training's folder, or a .solverstate.",
)
@_where("--gpus", metavar="0,1|all|none", help="Devices.  [none; of a resumed run: its own]")
@_where("--run-dir", type=click.Path(path_type=Path), help="Run folder.  [runs/DATE-TIME]")
@_where(
    "--engine",
    type=click.Choice(["auto", "caffe", "torch"]),
    default="auto",
    show_default=True,
    help="What trains.",
)
@_where("--caffe", type=click.Path(path_type=Path), help="Use this Caffe.")
@_where("--docker", metavar="IMAGE", help="Use the Caffe in a docker image.")
@_first("--dry-run", is_flag=True, help="Show the plan and what is wrong with it; start nothing.")
@_first("--print-config", is_flag=True, help="Show every value and where it comes from.")
@_first("--smoke", is_flag=True, help="Two iterations, a test, a snapshot: what to expect.")
@_first("--ignore-findings", is_flag=True, help="Start in spite of errors that check finds.")
@_snapshots(
    "--keep-snapshots",
    type=click.IntRange(1),
    metavar="N",
    help="Keep the newest N.  [3, and all of the solver's schedule and of earlier calls]",
)
@_snapshots(
    "--keep-epochs",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="And one of every so many epochs; 0: none.",
)
@_snapshots(
    "--snapshot-minutes",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="A snapshot at least so often, besides the solver's; 0: none.",
)
@_care(
    "--max-restarts",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    help="After crashes and stalls, without a new snapshot between them.",
)
@_care(
    "--on-divergence",
    type=click.Choice(["stop", "continue", "rollback"]),
    default="stop",
    show_default=True,
    help="When the loss is lost.",
)
@_care(
    "--max-rollbacks",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="To the last good snapshot, with a smaller learning rate.",
)
@_care(
    "--rollback-lr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Multiplies the learning rate each time.",
)
@_care(
    "--stall-minutes",
    type=click.FloatRange(0),
    help="Silence that counts as a stall; 0: none does.  [from the log's own rhythm]",
)
@_shells("--status", metavar="RUN", type=click.Path(path_type=Path), help="Show what it does.")
@_shells("--snapshot-now", metavar="RUN", type=click.Path(path_type=Path), help="Let it write one.")
@_shells(
    "--stop",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Snapshot, then stop; --resume RUN goes on.",
)
@_other("--plot/--no-plot", default=True, show_default=True, help="Keep plot.png up to date.")
@_other("--json", "as_json", is_flag=True, help="Report as JSON.")
def train_command(
    solver: Path | None,
    recipe: str | None,
    weights: tuple[Path, ...],
    resume: str | None,
    gpus: str | None,
    run_dir: Path | None,
    engine: str,
    caffe: Path | None,
    docker: str | None,
    dry_run: bool,
    print_config: bool,
    smoke: bool,
    as_json: bool,
    **more: Any,
) -> int:
    """Train with the real Caffe, in a run folder that keeps the whole story.

    Everything is checked before the start. Ctrl-C or SIGTERM once: snapshot, then stop (exit code
    130); twice: stop at once. SIGHUP: snapshot, and go on. A crashed or stalled Caffe is started
    again from its newest whole snapshot.

    With --recipe every option of build-net is taken, too.
    """
    asked = {name: more.pop(name) for name in ("status", "snapshot_now", "stop")}
    if any(asked.values()):
        return from_another_shell(asked, as_json)
    if engine == "torch":
        raise UsageError(
            "--engine torch: this version trains with Caffe only", "--engine caffe, or auto"
        )
    options = _options(more, gpus or "none", weights, run_dir, caffe, docker)
    refuse_mixed(solver, recipe, resume, weights)
    point = None
    if resume is not None:
        if smoke:
            raise UsageError("--resume does not go with --smoke")
        point, options = to_resume(resume, solver, options)
    from irv2caffe.caffe.find import find_caffe

    found = find_caffe(options.caffe, docker=options.docker)
    if resume is not None and point is None:
        if dry_run or print_config:
            raise UsageError("--resume RUN goes with neither --dry-run nor --print-config")
        return _train(None, found, options, as_json)
    solver = point.solver if point is not None else solver
    with _solver(solver, recipe, found, options) as (path, options):
        if dry_run or print_config:
            train_options = options.train_options
            return show_plan(path, found, train_options, as_json=as_json, config=print_config)
        if smoke:
            from irv2caffe.train.run.smoke_test import run_smoke_test

            result = run_smoke_test(
                path, found, options.train_options, options.supervision, say=ui.say
            )
            return show_smoke_result(result, as_json)
        return _train(path, found, options, as_json)


def _options(
    more: dict[str, Any],
    gpus: str,
    weights: tuple[Path, ...],
    run_dir: Path | None,
    caffe: Path | None,
    docker: str | None,
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
        gpus=gpus,
        weights=weights,
        run_dir=run_dir,
        keep_newest=more.pop("keep_snapshots"),
        keep_epochs=more.pop("keep_epochs"),
        ignore_findings=more.pop("ignore_findings"),
        given=told_options(more),
    )
    return LaunchOptions(train_options, supervision, caffe, docker)


@contextmanager
def _solver(
    solver: Path | None, recipe: str | None, found: FoundCaffe, options: LaunchOptions
) -> Iterator[tuple[Path, LaunchOptions]]:
    """The given solver, or that of a recipe, in a temporary folder."""
    if solver is not None:
        yield solver, options
        return
    from irv2caffe.train.plan.recipe import build_recipe

    assert recipe is not None
    given = options.train_options
    with tempfile.TemporaryDirectory(prefix="irv2caffe-") as folder:
        built = build_recipe(Path(folder), recipe, given.given, found, given.gpus)
        for line in built.net.warnings:
            ui.say(f"warning: {line}")
        train_options = replace(
            given,
            given={},
            values=built.values,
            origin=f"recipe {recipe}",
            databases=built.databases,
        )
        yield built.net.solver, replace(options, train_options=train_options)


def _train(solver: Path | None, found: FoundCaffe, options: LaunchOptions, as_json: bool) -> int:
    """Trains with a solver, or resumes a run without one."""
    from irv2caffe.train.run.launch import resume, train

    ui.say(f"Caffe: {found.name} ({found.reason})")
    train_options, supervision = options.train_options, options.supervision
    with ui.status_line() as status:
        output = {"say": _ignore_closed_terminal(ui.say), "status": _ignore_closed_terminal(status)}
        if solver is None:
            result = resume(found, train_options, supervision, **output)
        else:
            result = train(solver, found, train_options, supervision, **output)
    return show_result(result, as_json)


def _ignore_closed_terminal(show: Callable[[str], None]) -> Callable[[str], None]:
    """The same function, without errors if the terminal was closed: the training goes on."""

    def show_if_open(text: str) -> None:
        with suppress(OSError):
            show(text)

    return show_if_open


_with_build_options(train_command)
