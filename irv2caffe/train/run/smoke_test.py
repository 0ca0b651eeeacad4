"""Two iterations, one test and one snapshot of the real thing, and what they say of the whole."""

from __future__ import annotations

import resource
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe import ui
from irv2caffe.errors import CaffeFailedError
from irv2caffe.log.read.parse import parse
from irv2caffe.train.plan.make_plan import make_plan
from irv2caffe.train.run import prepare
from irv2caffe.train.run.launch import Training
from irv2caffe.train.run.tracker import Tracker
from irv2caffe.train.run.verdict import Ending
from irv2caffe.train.run_dir.lock import locked
from irv2caffe.train.run_dir.run_dir import RUNS, new_run_dir
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.caffe.find import FoundCaffe
    from irv2caffe.train.plan.plan import Plan, TrainOptions
    from irv2caffe.train.run.options import SessionOptions

_ITERATIONS = 2
_TEST_BATCHES = 2


@dataclass(frozen=True)
class Smoke:
    """What a trial of the real thing measured.

    Attributes:
        step_s: seconds of an iteration.
        test_s: seconds of a whole test, from a few batches; None where there is none.
        pair_bytes: of a snapshot.
        memory_bytes: at most, of the process; a GPU's is not in it.
        total_s: of the whole run.
        images_per_second: of the training.
    """

    step_s: float
    test_s: float | None
    pair_bytes: int | None
    memory_bytes: int
    total_s: float
    images_per_second: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def text(self) -> list[str]:
        """For a person."""
        lines = [
            f"iteration         {self.step_s:.3f} s, {self.images_per_second:.1f} images/s",
            f"memory            {format_bytes(self.memory_bytes)} of the process at most",
        ]
        if self.test_s is not None:
            lines.insert(1, f"test              {ui.duration(self.test_s)}")
        if self.pair_bytes is not None:
            lines.append(f"snapshot          {format_bytes(self.pair_bytes)}")
        return [*lines, f"the whole run     {ui.duration(self.total_s)}, from these"]


def smoke(
    solver: Path,
    found: FoundCaffe,
    train_options: TrainOptions,
    options: SessionOptions,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Smoke:
    """Runs two iterations, two batches of the test and a snapshot, in a folder that goes again.

    Args:
        solver: a solver prototxt.
        found: the Caffe that trains.
        train_options: what is asked for besides.
        options: how a training is looked after.
        say: called with lines for a person.

    Raises:
        CaffeFailedError: it did not come through; the folder is left.
        Irv2CaffeError: before the start, as for a real run.
    """
    plan = make_plan(solver, found, train_options)
    plan.raise_problems()
    whole = _shortened(plan)
    beside = train_options.run_dir.parent if train_options.run_dir is not None else RUNS
    beside.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".smoke-", dir=beside))
    run = new_run_dir(folder / "run")
    short = replace(options, max_restarts=0, plot=False, on_divergence="stop", snapshot_s=0)
    with locked(run) as lock:
        prepare.write_inputs(run, plan, short)
        result = Training(run, plan, short, lock, say, lambda _: None).run(None)
    if result.verdict.ending is not Ending.FINISHED:
        raise CaffeFailedError(
            f"the trial {result.verdict.ending}: {result.verdict.why}",
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
    """Makes the solver short; returns what it would have been."""
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


def _report(log: Path, plan: Plan, whole: dict[str, int], pair_bytes: int | None) -> Smoke:
    tracker = Tracker()
    test_began = test_s = None
    from irv2caffe.log.read import events
    from irv2caffe.train.run.tracker import between, seconds_of

    with log.open("rb") as lines:
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip()
            tracker.line(text)
            event = parse(text)
            if isinstance(event, events.TestStart):
                test_began = seconds_of(text)
            elif isinstance(event, events.Done) and test_began is not None and test_s is None:
                test_s = between(test_began, seconds_of(text) or test_began)
    step_s = tracker.rate.step_s or 0.0
    total_s = whole["max_iter"] * step_s
    if test_s is not None and whole["test_interval"]:
        batches = plan.solver.test_iter[0]
        test_s *= whole["test_iter"] / batches
        total_s += test_s * (whole["max_iter"] // whole["test_interval"])
    return Smoke(
        step_s=step_s,
        test_s=test_s,
        pair_bytes=pair_bytes,
        memory_bytes=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        total_s=total_s,
        images_per_second=plan.effective_batch / step_s if step_s else 0.0,
    )
