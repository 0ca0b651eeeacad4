"""Runs Caffe until the training ends: restarts after crashes, rollbacks after divergence.

start -> finished, stopped   the end
start -> crashed, stalled    retryable, and at most ``max_restarts`` failures without a new
snapshot: a pause, then a start from the newest complete snapshot;
otherwise the end
start -> diverged            snapshots after the last healthy iteration are set aside; with
``on_divergence: rollback``, a start from the one before with a
smaller learning rate; otherwise the end
pause -> stopped             a signal or ``--stop``
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import IO, TYPE_CHECKING

from irv2caffe.errors import OutputError, UnreadableError
from irv2caffe.train.plan.findings import lines as finding_lines
from irv2caffe.train.plan.plan_text import sums
from irv2caffe.train.run import config_json, prepare
from irv2caffe.train.run.best_tests import BestTests
from irv2caffe.train.run.context import Context
from irv2caffe.train.run.metrics_jsonl import rebuild
from irv2caffe.train.run.plotting import Plotter
from irv2caffe.train.run.result import TrainResult, conclude
from irv2caffe.train.run.signals import Signals
from irv2caffe.train.run.stall_watch import StallWatch
from irv2caffe.train.run.training_session import TrainingSession
from irv2caffe.train.run.verdict import STOP_ASKED, Ending, Verdict, stopped_hint
from irv2caffe.train.run_dir import checksums, control
from irv2caffe.train.run_dir.retention import SnapshotKeeper
from irv2caffe.train.run_dir.snapshots import Pair, fix_model_path, newest_complete, set_aside

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.panel import Status
    from irv2caffe.train.plan.plan import Plan
    from irv2caffe.train.run.options import SupervisionOptions
    from irv2caffe.train.run_dir.run_dir import RunDir

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 300.0


def run_training(
    run: RunDir,
    plan: Plan,
    options: SupervisionOptions,
    lock: IO[str],
    pair: Pair | None,
    *,
    say: Callable[[str], None],
    status: Callable[[Status], None] = lambda _: None,
) -> TrainResult:
    """Trains in a prepared run folder, to the end.

    Args:
        run: the run folder.
        plan: a plan without problems.
        options: the options of its supervision.
        lock: the open lock file of the run folder.
        pair: the snapshot to start from; None starts from the beginning.
        say: called with messages for the user.
        status: called with the status, once a second.
    """
    signals = Signals(saves=plan.engine.saves)
    with signals.handled():
        trains = f"{plan.engine.title} trains on {plan.devices.text()}"
        for line in (trains, sums(plan), *plan.notes, *finding_lines(plan)):
            say(line)
        say(f"run folder {run.path}, log {run.log}")
        keeper = SnapshotKeeper(run.snapshots, plan.job.train_net, plan.keep, pair, say)
        context = Context(
            run=run,
            plan=plan,
            options=options,
            lock=lock,
            keeper=keeper,
            best=BestTests(keeper, plan.criterion, say, on_request=plan.engine.saves),
            # other machines are silent while the first one tests, which has a watch of its own
            stall_watch=StallWatch(options.stall_s if plan.engine.saves else 0),
            plotter=Plotter(run, enabled=options.plot, say=say),
            requests=control.Requests(run),
            signals=signals,
            say=say,
            status=status,
        )
        verdict = _RestartLoop(context).run(pair)
        result = conclude(run, verdict, keeper.newest, plan.num_train, say)
        context.plotter.finish()
    return result


class _RestartLoop:
    """The starts of one call."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._failures = 0
        self._rollbacks = 0
        self._furthest = -1  # iteration of the newest snapshot so far

    def run(self, pair: Pair | None) -> Verdict:
        """Starts from a pair, or from the beginning; returns the final verdict."""
        context = self._context
        if pair is not None:
            self._furthest = pair.iteration
        while True:
            session, verdict = self._start(pair)
            if verdict.ending is Ending.DIVERGED:
                final = self._roll_back(session, verdict, pair)
            else:
                final = self._prepare_restart(verdict)
            if final is not None:
                return final
            pair = context.keeper.newest
            where = f"iteration {pair.iteration:,}" if pair is not None else "the beginning"
            context.say(f"{verdict.ending}: {verdict.why}; continuing from {where}")

    def _start(self, pair: Pair | None) -> tuple[TrainingSession, Verdict]:
        context = self._context
        run, plan = context.run, context.plan
        number = run.num_starts() + 1
        first = pair.iteration if pair is not None else 0
        if pair is not None:
            fix_model_path(pair)
        checksums.forget_after(run.snapshots, first, context.say)
        context.best.start(first)
        if number > 1:
            rebuild(run, plan.effective_batch, plan.num_train, before=first)
        if first >= plan.solver.max_iter:
            prepare.write_solver(run, plan, only_test=True)
        arguments = prepare.caffe_arguments(run, plan, pair)
        container = prepare.container(run, plan, number)
        command = plan.engine.command(arguments, container)
        config_json.record_start(run, number, command, plan, pair)
        session = TrainingSession(context, number, command)
        verdict = session.run()
        config_json.record_end(run, verdict, session.exit_status, session.now.iteration)
        return session, verdict

    def _prepare_restart(self, verdict: Verdict) -> Verdict | None:
        """Prepares a restart and returns None, or returns the final verdict."""
        if not verdict.retryable:
            return verdict
        context = self._context
        known = context.keeper.newest
        reached = known.iteration if known is not None else -1
        self._failures = 1 if reached > self._furthest else self._failures + 1
        self._furthest = max(reached, self._furthest)
        limit = context.options.max_restarts
        if self._failures > limit:
            if limit:
                context.say(f"no new snapshot in {limit} restarts: given up")
            return verdict
        try:
            pair, problems = newest_complete(context.run.snapshots, context.plan.job.train_net)
        except UnreadableError as error:
            return _snapshots_lost(verdict, error.message)
        for why in problems:
            context.say(f"skipped snapshot: {why}")
        if pair is None and known is not None:
            return _snapshots_lost(verdict, f"{known.state.name} was complete")
        context.keeper.go_back(pair)
        if verdict.ending is Ending.STALLED:
            self._change_after_stall()
        return self._pause(verdict)

    def _change_after_stall(self) -> None:
        """Lets the engine change the solver, so that it does not stall again."""
        context = self._context
        plan = context.plan
        is_known = plan.can is not None and plan.flavor == "bvlc" and plan.can.version == "1.0.0"
        if not is_known:  # others may not know the fields of the solver
            return
        changed = plan.engine.change_after_stall(plan.solver, plan.devices.count)
        if changed:
            prepare.write_solver(context.run, plan)
            context.say(changed)

    def _pause(self, verdict: Verdict) -> Verdict | None:
        """Waits before a restart, not before the first one; returns a verdict if stopped."""
        context = self._context
        seconds = 0.0
        if self._failures > 1:
            seconds = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (self._failures - 2))
            context.say(f"waiting {seconds:.0f} s before the next start")
        deadline = time.monotonic() + seconds
        while True:
            if control.STOP in context.requests.take():
                context.signals.stop()
            for message in context.signals.take_messages():
                context.say(message)
            if context.signals.stop_requested:
                newest = context.keeper.newest
                return Verdict(
                    Ending.STOPPED,
                    f"{STOP_ASKED} before the next start; before that: {verdict.why}",
                    stopped_hint(newest.iteration if newest is not None else None),
                )
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.1)

    def _roll_back(
        self, session: TrainingSession, verdict: Verdict, pair: Pair | None
    ) -> Verdict | None:
        """Sets diverged snapshots aside; returns None to continue from a healthy one."""
        context = self._context
        options, run, plan = context.options, context.run, context.plan
        if options.on_divergence == "continue":
            return verdict
        is_rollback = options.on_divergence == "rollback" and not context.signals.stop_requested
        if is_rollback and self._rollbacks >= options.max_rollbacks:
            context.say(f"diverged again after {self._rollbacks} rollbacks: given up")
            is_rollback = False
        healthy = session.now.last_healthy
        if healthy is None:  # a rollback does not reuse the snapshot that this start began with
            healthy = pair.iteration - is_rollback if pair is not None else -1
        try:
            good, _ = newest_complete(run.snapshots, plan.job.train_net, at_most=healthy)
            for path in set_aside(run.snapshots, good.iteration if good is not None else -1):
                context.say(f"set aside: {path.name}")
        except (UnreadableError, OutputError) as error:
            return _snapshots_lost(verdict, error.message)
        context.keeper.go_back(good)
        if not is_rollback:
            return verdict
        self._rollbacks += 1
        plan.solver.base_lr *= options.rollback_lr
        prepare.write_solver(run, plan)
        context.say(f"{verdict.why}; base_lr is {plan.solver.base_lr:.4g} now")
        return None


def _snapshots_lost(verdict: Verdict, what: str) -> Verdict:
    """A final verdict: a restart would lose the progress in the unreadable snapshots."""
    return replace(
        verdict,
        why=f"{verdict.why}; its snapshots can no longer be read or renamed: {what}",
        hint="check that their disk is mounted, then continue with irv2caffe train --resume",
        retryable=False,
    )
