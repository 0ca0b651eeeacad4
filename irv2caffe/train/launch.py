"""From a solver to a finished run: plan, run folder, start, verdict."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe import __version__, system, ui
from irv2caffe.caffe.command import tool_command
from irv2caffe.errors import MissingInputError, UsageError
from irv2caffe.log import events
from irv2caffe.log.read import Reader
from irv2caffe.log.summary import Summary, summarize
from irv2caffe.log.table import make_table, row_of_test
from irv2caffe.proto.text import write_prototxt
from irv2caffe.train.plan import Plan, make_plan, notes
from irv2caffe.train.run_dir import (
    RunDir,
    existing_run_dir,
    link_latest,
    locked,
    new_run_dir,
    newest_snapshot,
    read_config,
)
from irv2caffe.train.supervise import Supervisor
from irv2caffe.train.verdict import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.caffe.find import FoundCaffe


@dataclass(frozen=True)
class TrainResult:
    """What a training came to.

    Attributes:
        run_dir: everything about it.
        verdict: how it ended.
        summary: its figures.
    """

    run_dir: Path
    verdict: Verdict
    summary: Summary

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run_dir": str(self.run_dir),
            **asdict(self.verdict),
            "summary": self.summary.as_dict(),
        }


def train(
    solver: Path,
    found: FoundCaffe,
    *,
    gpus: str = "none",
    run_dir: Path | None = None,
    weights: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    status: Callable[[str], None] = lambda _: None,
) -> TrainResult:
    """Trains in a new run folder.

    Args:
        solver: a solver prototxt and, through it, the net.
        found: the Caffe that trains.
        gpus: ``none``, ``all`` or ``0,1``.
        run_dir: the folder; None makes ``runs/DATE-TIME``.
        weights: a ``.caffemodel`` to start from.
        say: called with lines for a person.
        status: called with the state of the training, again and again.

    Raises:
        Irv2CaffeError: before the start, for anything that would end the run later.
    """
    if weights is not None and not weights.is_file():
        raise MissingInputError(f"{weights}: no such file", "--weights takes a .caffemodel")
    plan = make_plan(solver, found, gpus)
    run = new_run_dir(run_dir)
    _write_inputs(run, plan, solver, found)
    extra = [] if weights is None else ["-weights", str(weights.absolute())]
    return _run(run, plan, found, extra, say=say, status=status)


def resume(
    found: FoundCaffe,
    *,
    gpus: str = "none",
    run_dir: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    status: Callable[[str], None] = lambda _: None,
) -> TrainResult:
    """Goes on with a run from its newest whole snapshot; see :func:`train`.

    Raises:
        MissingInputError: no run, or none of its snapshots is whole.
        UsageError: the run is finished.
    """
    run = existing_run_dir(run_dir)
    plan = make_plan(run.solver, found, gpus)
    snapshot = newest_snapshot(run)
    if snapshot.iteration >= plan.solver.max_iter:
        raise UsageError(
            f"{run.path} is finished: its snapshot is of iteration {snapshot.iteration:,}",
            "a new run starts without --resume",
        )
    say(f"resuming from iteration {snapshot.iteration:,}")
    extra = ["-snapshot", str(snapshot.state.absolute())]
    return _run(run, plan, found, extra, say=say, status=status)


def _write_inputs(run: RunDir, plan: Plan, solver_path: Path, found: FoundCaffe) -> None:
    """The run's own copy of all that Caffe reads, with absolute paths, and what it was made of."""
    solver = type(plan.solver)()
    solver.CopyFrom(plan.solver)
    names = iter(plan.nets)
    for field in ("net", "train_net"):
        if getattr(solver, field):
            setattr(solver, field, str((run.path / next(names)).absolute()))
    solver.test_net[:] = [str((run.path / next(names)).absolute()) for _ in solver.test_net]
    solver.snapshot_prefix = str(
        run.snapshots.absolute() / Path(solver.snapshot_prefix or "net").name
    )
    solver.solver_mode = type(solver).GPU if plan.gpus else type(solver).CPU
    for name, net in plan.nets.items():
        write_prototxt(run.path / name, net)
    deploy = solver_path.absolute().parent / "deploy.prototxt"
    if deploy.is_file():
        (run.path / "deploy.prototxt").write_bytes(deploy.read_bytes())
    run.write_config(
        {
            "irv2caffe": __version__,
            "argv": sys.argv,
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "solver": str(solver_path.absolute()),
            "caffe": {"root": str(found.root), "reason": found.reason},
            "gpus": plan.gpus or "none",
            "num_train_images": plan.num_train,
            "num_val_images": plan.num_val,
            "effective_batch": plan.effective_batch,
            "epochs": plan.epochs,
            "versions": system.versions(),
        }
    )
    write_prototxt(run.solver, solver)  # last: a folder with a solver is a run that can start


def _run(
    run: RunDir,
    plan: Plan,
    found: FoundCaffe,
    extra: list[str],
    *,
    say: Callable[[str], None],
    status: Callable[[str], None],
) -> TrainResult:
    """Starts Caffe, follows it to its end and judges."""
    gpu = ["-gpu", plan.gpus] if plan.gpus else []
    command = tool_command(
        found, "caffe", ["train", "-solver", str(run.solver.absolute()), *gpu, *extra]
    )
    with locked(run):
        link_latest(run)
        for line in notes(plan):
            say(line)
        say(f"run folder {run.path}, log {run.log}")
        reader = _earlier(run)
        follower = _Follower(reader, plan, status)
        supervisor = Supervisor(command, run.log, follower.line)
        exit_status = supervisor.run()
    summary = summarize(make_table(reader.log, num_train_images=plan.num_train))
    verdict = judge(reader.log, summary, exit_status, stop_requested=supervisor.stop_requested)
    run.write_config(
        {**read_config(run.path), "ending": verdict.ending.value, "summary": summary.as_dict()}
    )
    return TrainResult(run.path, verdict, summary)


def _earlier(run: RunDir) -> Reader:
    """A reader that has read what the run logged before it was interrupted."""
    reader = Reader()
    if run.log.is_file():
        with run.log.open("rb") as stream:
            for line in stream:
                reader.feed(line.decode("utf-8", "replace").rstrip("\r\n"))
    return reader


class _Follower:
    """Turns the log, while it grows, into one line of state."""

    def __init__(self, reader: Reader, plan: Plan, status: Callable[[str], None]) -> None:
        self._reader = reader
        self._plan = plan
        self._status = status
        self._started = time.monotonic()
        self._first_iteration: int | None = None

    def line(self, text: str) -> None:
        event = self._reader.feed(text)
        if isinstance(event, events.LearningRate) and self._reader.log.train:
            self._show(event.iteration)

    def _show(self, iteration: int) -> None:
        if self._first_iteration is None:
            self._first_iteration = iteration
            self._started = time.monotonic()
        parts = [f"iteration {iteration:,} of {self._plan.solver.max_iter:,}"]
        batch, images = self._plan.effective_batch, self._plan.num_train
        if images:
            parts.append(f"epoch {iteration * batch / images:.2f}")
        point = self._reader.log.train[-1]
        parts.append(f"loss {point.loss:.4g}")
        if point.lr is not None:
            parts.append(f"lr {point.lr:.3g}")
        done = iteration - self._first_iteration
        if done > 0:
            step_s = (time.monotonic() - self._started) / done
            left_s = step_s * (self._plan.solver.max_iter - iteration)
            parts += [f"{batch / step_s:.1f} images/s", f"{ui.duration(left_s)} left"]
        tests = self._reader.log.test
        error = row_of_test(tests[-1], None).top1_error if tests else None
        if error is not None:
            parts.append(f"validation error {error:.1f} %")
        self._status(", ".join(parts))
