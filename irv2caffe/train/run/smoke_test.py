"""Smoke test: runs two iterations, a test and a snapshot; estimates the whole run."""

from __future__ import annotations

import resource
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe import ui
from irv2caffe.errors import CaffeFailedError
from irv2caffe.log.read import events
from irv2caffe.log.read.clock import Clock
from irv2caffe.train.plan.make_plan import make_plan
from irv2caffe.train.run import prepare
from irv2caffe.train.run.restart_loop import run_training
from irv2caffe.train.run.tracker import Tracker
from irv2caffe.train.run.verdict import Ending
from irv2caffe.train.run_dir.folders import RUNS, new_run_dir
from irv2caffe.train.run_dir.lock import locked
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.train.engines.engine import Engine
    from irv2caffe.train.plan.plan import Plan, TrainOptions
    from irv2caffe.train.run.options import SupervisionOptions

_ITERATIONS = 2
_TEST_BATCHES = 2


@dataclass(frozen=True)
class SmokeResult:
    """The measurements of a smoke test.

    Attributes:
        step_s: seconds per iteration.
        test_s: seconds of a whole test, extrapolated from a few batches; None without a test.
        pair_bytes: size of a snapshot, or None.
        memory_bytes: peak memory of the process, without GPU memory.
        total_s: estimated seconds of the whole run.
        images_per_second: training speed.
    """

    step_s: float
    test_s: float | None
    pair_bytes: int | None
    memory_bytes: int
    total_s: float
    images_per_second: float

    def text(self) -> list[str]:
        """Lines for the user."""
        lines = [
            f"iteration         {self.step_s:.3f} s, {self.images_per_second:.1f} images/s",
            f"peak memory       {format_bytes(self.memory_bytes)}",
        ]
        if self.test_s is not None:
            lines.insert(1, f"test              {ui.duration(self.test_s)}")
        if self.pair_bytes is not None:
            lines.append(f"snapshot          {format_bytes(self.pair_bytes)}")
        return [*lines, f"whole run         {ui.duration(self.total_s)}, estimated from these"]


def run_smoke_test(
    solver: Path,
    engine: Engine,
    train_options: TrainOptions,
    options: SupervisionOptions,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> SmokeResult:
    """Runs two iterations, two batches of the test and a snapshot, in a temporary folder.

    Args:
        solver: a solver prototxt.
        engine: the program that trains.
        train_options: the options of the training.
        options: the options of its supervision.
        say: called with messages for the user.

    Raises:
        CaffeFailedError: Caffe failed; the folder is kept.
        Irv2CaffeError: the checks before the start found a problem.
    """
    plan = make_plan(solver, engine, train_options)
    plan.raise_problems()
    whole = _shortened(plan)
    beside = train_options.run_dir.parent if train_options.run_dir is not None else RUNS
    beside.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".smoke-", dir=beside))
    run = new_run_dir(folder / "run")
    short = replace(options, max_restarts=0, plot=False, on_divergence="stop", snapshot_s=0)
    with locked(run) as lock:
        prepare.write_inputs(run, plan, short)
        result = run_training(run, plan, short, lock, None, say=say)
    if result.verdict.ending is not Ending.FINISHED:
        raise CaffeFailedError(
            f"the smoke test {result.verdict.ending}: {result.verdict.why}",
            f"{result.verdict.hint}; its log is {run.log}",
        )
    pair_bytes = None
    if result.snapshot is not None:
        state = result.snapshot.with_suffix(".solverstate")
        pair_bytes = result.snapshot.stat().st_size + state.stat().st_size
    report = _report(run.log, plan, whole, pair_bytes)
    shutil.rmtree(folder, ignore_errors=True)
    return report


def _shortened(plan: Plan) -> dict[str, int]:
    """Shortens the plan's solver; returns the values of the whole run."""
    solver = plan.solver
    whole = {
        "max_iter": solver.max_iter,
        "test_interval": solver.test_interval,
        "test_iter": solver.test_iter[0] if solver.test_iter else 0,
    }
    solver.max_iter = solver.snapshot = _ITERATIONS
    solver.display = solver.average_loss = 1
    if solver.test_interval and solver.test_iter:
        solver.test_interval = _ITERATIONS
        solver.test_initialization = False
        solver.test_iter[:] = [min(count, _TEST_BATCHES) for count in solver.test_iter]
    return whole


def _report(log: Path, plan: Plan, whole: dict[str, int], pair_bytes: int | None) -> SmokeResult:
    tracker, clock = Tracker(), Clock()
    test_began_us = test_s = None
    with log.open("rb") as lines:
        for line in lines:
            event = tracker.line(line.decode("utf-8", "replace").rstrip())
            time_us = clock.tick(event.time) if event is not None else None
            if isinstance(event, events.TestStart):
                test_began_us = time_us
            elif isinstance(event, events.Done) and test_began_us is not None:
                test_s = ((time_us or test_began_us) - test_began_us) / 1e6
    step_s = tracker.rate.step_s or 0.0
    total_s = whole["max_iter"] * step_s
    if test_s is not None and whole["test_interval"]:
        batches = plan.solver.test_iter[0]
        test_s *= whole["test_iter"] / batches
        total_s += test_s * (whole["max_iter"] // whole["test_interval"])
    return SmokeResult(
        step_s=step_s,
        test_s=test_s,
        pair_bytes=pair_bytes,
        memory_bytes=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        total_s=total_s,
        images_per_second=plan.effective_batch / step_s if step_s else 0.0,
    )
