"""From a plan to a finished run: starts Caffe, and starts it again while that can help."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from irv2caffe.caffe.command import tool_command
from irv2caffe.errors import OutputError, UnreadableError
from irv2caffe.train.plan.findings import lines as finding_lines
from irv2caffe.train.plan.make_plan import make_plan
from irv2caffe.train.plan.plan import Plan, TrainOptions
from irv2caffe.train.plan.plan_text import sums
from irv2caffe.train.run import prepare
from irv2caffe.train.run.caffe_log import stitch
from irv2caffe.train.run.metrics import rebuild
from irv2caffe.train.run.options import SessionOptions
from irv2caffe.train.run.plotting import Plotter
from irv2caffe.train.run.result import TrainResult, conclude
from irv2caffe.train.run.resume import FinishedError, choose_pair, differences
from irv2caffe.train.run.session import Helpers, Session
from irv2caffe.train.run.signals import Signals
from irv2caffe.train.run.stall_watch import StallWatch
from irv2caffe.train.run.verdict import STOP_ASKED, Ending, Verdict, stopped_hint
from irv2caffe.train.run_dir import checksums, control
from irv2caffe.train.run_dir.keeper import Keeper
from irv2caffe.train.run_dir.lock import locked
from irv2caffe.train.run_dir.orphan import wait_for_orphan
from irv2caffe.train.run_dir.run_dir import (
    RunDir,
    existing_run_dir,
    link_latest,
    make_complete,
    new_run_dir,
    read_config,
    remove_left_over,
)
from irv2caffe.train.run_dir.snapshots import Pair, mend, newest_whole, reject

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import IO

    from irv2caffe.caffe.find import FoundCaffe

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 300.0


def train(
    solver: Path,
    found: FoundCaffe,
    train_options: TrainOptions = TrainOptions(),  # noqa: B008 - frozen
    options: SessionOptions = SessionOptions(),  # noqa: B008
    *,
    say: Callable[[str], None] = lambda _: None,
    status: Callable[[str], None] = lambda _: None,
) -> TrainResult:
    """Trains in a new run folder, from the beginning or from a snapshot of another training.

    Args:
        solver: a solver prototxt and, through it, the net.
        found: the Caffe that trains.
        train_options: what is asked for besides; without a run folder it is ``runs/DATE-TIME``.
        options: how the training is looked after.
        say: called with lines for a person.
        status: called with the state of the training, again and again.

    Raises:
        Irv2CaffeError: before the start, for anything that would end the run later.
    """
    plan = make_plan(solver, found, train_options)
    plan.raise_problems()
    run = new_run_dir(train_options.run_dir)
    with locked(run) as lock:
        remove_left_over(run)
        pair = prepare.write_inputs(run, plan, options)
        link_latest(run)
        return Training(run, plan, options, lock, say, status).run(pair)


def resume(
    found: FoundCaffe,
    train_options: TrainOptions = TrainOptions(),  # noqa: B008
    options: SessionOptions = SessionOptions(),  # noqa: B008
    *,
    say: Callable[[str], None] = lambda _: None,
    status: Callable[[str], None] = lambda _: None,
) -> TrainResult:
    """Goes on with a run from its newest whole snapshot; see :func:`train`.

    Raises:
        MissingInputError: no run there.
        InputError: the net is another one now, or another training works there.
        UsageError: the run is finished.
    """
    run = existing_run_dir(train_options.run_dir)
    make_complete(run)
    wait_for_orphan(run, say)
    with locked(run) as lock:
        remove_left_over(run)
        plan = make_plan(run.solver, found, replace(train_options, run_dir=run.path, moved=True))
        plan.raise_problems()
        try:
            pair = choose_pair(run, plan, say)
        except FinishedError:
            _complete_record(run, plan, say)
            raise
        for line in differences(read_config(run.path), plan):
            say(f"changed since the last start: {line}")
        prepare.write_inputs(run, plan, options)
        say(f"resuming from iteration {pair.iteration if pair is not None else 0:,}")
        link_latest(run)
        return Training(run, plan, options, lock, say, status).run(pair)


def _complete_record(run: RunDir, plan: Plan, say: Callable[[str], None]) -> None:
    """Says in the folder of a finished run that it is: its trainer was killed before it could."""
    if read_config(run.path).get("ending") != "running":
        return
    stitch(run.log, run.logs)
    rebuild(run, plan.effective_batch, plan.num_train, before=None)
    verdict = Verdict(Ending.FINISHED)
    newest, _ = newest_whole(run.snapshots)
    prepare.record_end(run, verdict, None, plan.solver.max_iter)
    conclude(run, verdict, newest, plan.num_train, say)


class Training:
    """The starts of one call, until one of them is the last."""

    def __init__(
        self,
        run: RunDir,
        plan: Plan,
        options: SessionOptions,
        lock: IO[str],
        say: Callable[[str], None],
        status: Callable[[str], None],
    ) -> None:
        self._run = run
        self._plan = plan
        self._options = options
        self._lock = lock
        self._say = say
        self._status = status
        self._signals = Signals()
        self._failures = 0
        self._rollbacks = 0
        self._furthest = -1

    def run(self, pair: Pair | None) -> TrainResult:
        """Starts from a pair, or from the beginning."""
        with self._signals.heard():
            return self._run_through(pair)

    def _run_through(self, pair: Pair | None) -> TrainResult:
        run, plan = self._run, self._plan
        self._say(sums(plan))
        for line in (*plan.notes, *finding_lines(plan)):
            self._say(line)
        self._say(f"run folder {run.path}, log {run.log}")
        helpers = Helpers(
            keeper=Keeper(run.snapshots, plan.job.train_net, plan.keep, pair, self._say),
            watch=StallWatch(self._options.stall_s),
            plotter=Plotter(run, enabled=self._options.plot, say=self._say),
            say=self._say,
            status=self._status,
            requests=control.Requests(run),
            signals=self._signals,
        )
        if pair is not None:
            self._furthest = pair.iteration
        verdict = self._starts(pair, helpers)
        result = conclude(run, verdict, helpers.keeper.newest, plan.num_train, self._say)
        helpers.plotter.finish()
        return result

    def _starts(self, pair: Pair | None, helpers: Helpers) -> Verdict:
        while True:
            session, verdict = self._start(pair, helpers)
            if verdict.ending is Ending.DIVERGED:
                last = self._roll_back(session, verdict, pair, helpers)
            else:
                last = self._try_again(verdict, helpers)
            if last is not None:
                return last
            pair = helpers.keeper.newest
            where = f"iteration {pair.iteration:,}" if pair is not None else "the beginning"
            self._say(f"{verdict.ending}: {verdict.why}; going on from {where}")

    def _start(self, pair: Pair | None, helpers: Helpers) -> tuple[Session, Verdict]:
        run, plan = self._run, self._plan
        number = run.num_starts() + 1
        before = pair.iteration if pair is not None else 0
        if pair is not None:
            mend(pair)
        checksums.forget_after(run.snapshots, before, self._say)
        if number > 1:
            rebuild(run, plan.effective_batch, plan.num_train, before=before)
        if before >= plan.solver.max_iter:
            prepare.write_solver(run, plan, only_test=True)
        arguments = prepare.caffe_arguments(run, plan, pair)
        command = tool_command(
            plan.found, "caffe", arguments, container=prepare.container(run, plan, number)
        )
        prepare.record_start(run, number, command, plan, pair)
        session = Session(run, plan, self._options, helpers, number)
        verdict = session.run(command, self._lock)
        prepare.record_end(run, verdict, session.exit_status, session.now.iteration)
        return session, verdict

    def _try_again(self, verdict: Verdict, helpers: Helpers) -> Verdict | None:
        """None where a failure may pass, and there was progress since the last; else the end."""
        if not verdict.passing:
            return verdict
        known = helpers.keeper.newest
        reached = known.iteration if known is not None else -1
        self._failures = 1 if reached > self._furthest else self._failures + 1
        self._furthest = max(reached, self._furthest)
        if self._failures > self._options.max_restarts:
            if self._options.max_restarts:
                self._say(f"no new snapshot in {self._options.max_restarts} restarts: given up")
            return verdict
        try:
            pair, problems = newest_whole(self._run.snapshots, self._plan.job.train_net)
        except UnreadableError as error:
            return _out_of_sight(verdict, error.message)
        for why in problems:
            self._say(f"passed over: {why}")
        if pair is None and known is not None:
            return _out_of_sight(verdict, f"{known.state.name} was whole")
        helpers.keeper.go_back(pair)
        return self._wait(verdict, helpers)

    def _wait(self, verdict: Verdict, helpers: Helpers) -> Verdict | None:
        """The first restart is at once, later ones after a while, and none where a stop comes."""
        seconds = 0.0
        if self._failures > 1:
            seconds = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (self._failures - 2))
            self._say(f"waiting {seconds:.0f} s before the next start")
        deadline = time.monotonic() + seconds
        while True:
            if control.STOP in helpers.requests.take():
                self._signals.stop()
            if self._signals.stop_requested:
                newest = helpers.keeper.newest
                return Verdict(
                    Ending.STOPPED,
                    f"{STOP_ASKED} before the next start; before that: {verdict.why}",
                    stopped_hint(newest.iteration if newest is not None else None),
                )
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.1)

    def _roll_back(
        self, session: Session, verdict: Verdict, pair: Pair | None, helpers: Helpers
    ) -> Verdict | None:
        """Sets aside what was written since the loss was healthy; None where it goes on there."""
        options, run = self._options, self._run
        if options.on_divergence == "continue":
            return verdict
        goes_back = options.on_divergence == "rollback" and not self._signals.stop_requested
        if goes_back and self._rollbacks >= options.max_rollbacks:
            self._say(f"diverged again after {self._rollbacks} rollbacks: given up")
            goes_back = False
        healthy = session.now.last_healthy
        if healthy is None:
            # Where it goes back, the snapshot it began with was no good, either.
            healthy = pair.iteration - goes_back if pair is not None else -1
        try:
            good, _ = newest_whole(run.snapshots, self._plan.job.train_net, at_most=healthy)
            for path in reject(run.snapshots, good.iteration if good is not None else -1):
                self._say(f"set aside: {path.name}")
        except (UnreadableError, OutputError) as error:
            return _out_of_sight(verdict, error.message)
        helpers.keeper.go_back(good)
        if not goes_back:
            return verdict
        self._rollbacks += 1
        solver = self._plan.solver
        solver.base_lr = solver.base_lr * options.rollback_lr
        prepare.write_solver(run, self._plan)
        self._say(f"{verdict.why}; base_lr is {solver.base_lr:.4g} now")
        return None


def _out_of_sight(verdict: Verdict, what: str) -> Verdict:
    """The end of a run that would begin anew although there were snapshots."""
    return replace(
        verdict,
        why=f"{verdict.why}; its snapshots cannot be read or renamed any more: {what}",
        hint="is their disk there? irv2caffe train --resume goes on when it is",
        passing=False,
    )
