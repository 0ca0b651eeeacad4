"""Runs one start of Caffe: follows its log, and stops or kills the process if needed.

The phases of a start:

- ``start``: until the first display of the loss or the first test;
- ``train`` and ``test``: alternate, as in the log;
- ended: the process has ended; :func:`judge` classifies the end from log and exit status.

A start ends early by:

- a stop (SIGINT to Caffe, which writes a snapshot and ends): a signal, ``--stop``, or a log that
  fills the disk;
- a kill: divergence, since a snapshot would hold useless weights; no log line for too long;
  output without end; a process that hangs after logging its end; a second signal.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from irv2caffe.atomic import write_error
from irv2caffe.log.read import events
from irv2caffe.train.run import progress
from irv2caffe.train.run.caffe_log import LogSizeWatch, RawLog
from irv2caffe.train.run.metrics_jsonl import MetricsFile
from irv2caffe.train.run.stall_watch import describe_process
from irv2caffe.train.run.state_json import state_values
from irv2caffe.train.run.supervisor import Supervisor
from irv2caffe.train.run.tracker import Row, StartState, Tracker
from irv2caffe.train.run.verdict import Ending, Outcome, Verdict, judge
from irv2caffe.train.run_dir import control
from irv2caffe.train.run_dir.lock import Owner, read_owner, start_time, write_owner
from irv2caffe.train.run_dir.run_dir import write_state

if TYPE_CHECKING:
    from irv2caffe.caffe.command import Command
    from irv2caffe.panel import Status
    from irv2caffe.train.run.context import Context

_STATE_S = 2.0
_STATUS_S = 1.0
# BVLC's Caffe hangs after a SIGINT with several GPUs: its workers wait for the stopped one. By then
# it has logged its end, and its files are complete.
_HANG_S = 10.0
# Caffe prints all outputs of a test at once: after this long without a line none is missing.
_SETTLED_S = 1.0
# Events of the thread that writes snapshots; lines of other threads may come during a snapshot.
_AFTER_SNAPSHOT = (events.Loss, events.TestStart, events.StoppedEarly, events.Done)


class TrainingSession:
    """Follows one process of Caffe from its start to its verdict.

    Attributes:
        exit_status: exit status of the process after its end; negative for a signal.
    """

    def __init__(self, context: Context, number: int, command: Command) -> None:
        """Prepares a start.

        Args:
            context: the context that all starts share.
            number: number of this start; the first of a run is 1.
            command: the command that starts Caffe.

        Raises:
            OutputError: the log cannot be created.
        """
        self._context = context
        self._number = number
        self._command = command
        run, plan = context.run, context.plan
        self._metrics = MetricsFile(run.metrics, number, plan.effective_batch, plan.num_train)
        self._tracker = Tracker(self._on_row)
        try:
            self._log = RawLog(run.log_of(number), run.log)
        except OSError as error:
            raise write_error(run.log_of(number), error) from error
        self._log_size = LogSizeWatch(self._log, context.free_bytes, context.snapshot_bytes)
        self._supervisor = Supervisor(
            command,
            self._log,
            context.signals,
            on_line=self._on_line,
            on_poll=self._on_poll,
            keep_open=(context.lock.fileno(),),
        )
        self._errors = progress.Errors.of(context.best.best)
        self._snapshot_due = self._after_snapshot_interval()
        self._state_due = self._status_due = 0.0
        self._hang_deadline: float | None = None
        self._line_at = time.monotonic()
        self._logged_since_snapshot = False
        self._stalled = ""
        self._killed_for_divergence = False
        self._num_snapshots = 0
        self._has_begun = False
        self.exit_status = 0

    @property
    def now(self) -> StartState:
        """The state of the training."""
        return self._tracker.now

    def run(self) -> Verdict:
        """Starts Caffe, follows it to its end and judges how it ended.

        Raises:
            CaffeFailedError: it cannot be started.
            OutputError: the run folder cannot be written.
        """
        context = self._context
        context.stall_watch.start()
        try:
            self.exit_status = self._supervisor.run(self._write_owner)
        finally:
            self._log.close()
        self._tracker.finish()
        self._metrics.flush()
        self._verify_snapshot(complete=True)
        verdict = judge(self.now, self._outcome())
        if verdict.ending is Ending.FINISHED:
            context.keeper.set_healthy(context.plan.solver.max_iter)
        self._mark_healthy()
        context.best.end(diverged=self.now.diverged is not None)
        context.status(self._status())
        self._write_state("ended")
        return verdict

    def _write_owner(self) -> None:
        """Writes Caffe's process number into the lock file, in case this process is killed."""
        owner, pid = read_owner(self._context.run), self._supervisor.pid
        if owner is not None:
            child = (pid, start_time(pid), self._command.container)
            write_owner(self._context.lock, Owner(owner.host, owner.pid, owner.began, *child))

    def _outcome(self) -> Outcome:
        context = self._context
        plan, newest = context.plan, context.keeper.newest
        return Outcome(
            exit_status=self.exit_status,
            stop_requested=context.signals.stop_requested,
            stalled=self._stalled,
            abandoned=self._supervisor.abandoned,
            diverged=self._killed_for_divergence,
            flooded=self._log_size.problem,
            newest=newest.iteration if newest is not None else None,
            max_iter=context.plan.solver.max_iter,
            free_bytes=context.free_bytes(),
            pair_bytes=context.snapshot_bytes(),
            trainer=context.plan.engine.title,
            saves=context.plan.engine.saves,
            on_stall=plan.engine.stall_help(plan.solver, plan.devices.count),
        )

    def _on_line(self, text: str) -> None:
        context = self._context
        self._line_at = time.monotonic()
        event = self._tracker.line(text)
        context.stall_watch.line(self.now.phase, is_display=isinstance(event, events.Loss))
        if isinstance(event, events.Snapshot) and event.is_state:
            self._verify_snapshot(complete=True)  # the one before, if it is still pending
            context.keeper.add(event.path, requested=context.signals.snapshot_requested)
            context.signals.snapshot_requested = False
            self._logged_since_snapshot = False
        elif isinstance(event, _AFTER_SNAPSHOT):
            self._logged_since_snapshot = True

    def _on_row(self, row: Row) -> None:
        self._metrics.add(row)
        if row["kind"] == "test" and row["net"] == 0:
            self._errors.take(row["top1_error"])
            self._verify_snapshot(complete=True)  # a snapshot before the test has its weights
            if self.now.diverged is None:
                self._context.best.take_test(row)
        self._context.plotter.refresh(is_test=row["kind"] == "test")

    def _on_poll(self) -> None:
        """Checks the process and writes due records; called ten times a second."""
        now_s = time.monotonic()
        self._metrics.flush()
        self._verify_snapshot(complete=self._logged_since_snapshot)
        self._mark_healthy()
        self._check_divergence()
        self._request_best()
        self._check_hang(now_s)
        self._check_stall()
        self._check_log_size()
        self._take_requests()
        for message in self._context.signals.take_messages():
            self._context.say(message)
            self._status_due = now_s
        if now_s >= self._snapshot_due and self.now.phase == "train":
            self._supervisor.send(signal.SIGHUP)
            self._snapshot_due = self._after_snapshot_interval()
        begins = self.now.iteration is not None and not self._has_begun
        if begins or now_s >= self._status_due:
            self._status_due = now_s + _STATUS_S
            self._context.status(self._status())
        if begins or now_s >= self._state_due:
            self._has_begun = self.now.iteration is not None
            self._write_state(self.now.phase)

    def _status(self) -> Status:
        plan, rate = self._context.plan, self._tracker.rate
        return progress.status(plan, self.now, rate, self._errors, self._context.signals.stopping)

    def _after_snapshot_interval(self) -> float:
        context = self._context
        interval_s = context.options.snapshot_s if context.plan.engine.saves else None
        return time.monotonic() + (interval_s or float("inf"))

    def _verify_snapshot(self, *, complete: bool) -> None:
        if self._context.keeper.verify(complete=complete):
            self._num_snapshots += 1
            self._context.best.take_snapshot(self._context.keeper.newest)
            self._snapshot_due = self._after_snapshot_interval()
            self._write_state(self.now.phase)

    def _mark_healthy(self) -> None:
        now = self.now
        ignored = now.diverged is not None and self._context.options.on_divergence == "continue"
        healthy = now.iteration if ignored else now.last_healthy
        if healthy is not None:
            self._context.keeper.set_healthy(healthy)
            self._context.best.set_healthy(healthy)

    def _request_best(self) -> None:
        """Requests a snapshot of a test that is the best so far; a stop writes one anyway."""
        if time.monotonic() >= self._line_at + _SETTLED_S:
            self._tracker.finish_test()
        if self._context.best.take_request() and not self._context.signals.stop_requested:
            self._supervisor.send(signal.SIGHUP)

    def _check_divergence(self) -> None:
        now = self.now
        if now.diverged is None or self._killed_for_divergence:
            return
        if self._context.options.on_divergence != "continue":
            self._killed_for_divergence = True
            self._kill(f"the loss diverged at iteration {now.diverged:,}: {now.diverged_how}")

    def _check_hang(self, now_s: float) -> None:
        """Kills a process that has logged its end, but does not end."""
        if not (self.now.stopped or self.now.done) or self._context.keeper.is_pending:
            return
        if self._hang_deadline is None:
            self._hang_deadline = now_s + _HANG_S
        elif now_s >= self._hang_deadline:
            self._hang_deadline = float("inf")
            what = "has stopped and written its snapshot" if self.now.stopped else "is done"
            self._kill(f"{self._context.plan.engine.title} {what}, but hangs: killed")

    def _check_stall(self) -> None:
        watch = self._context.stall_watch
        if self._stalled or not watch.is_stalled():
            return
        self._stalled = (
            f"no line for {watch.silence_s:.0f} s in phase {self.now.phase!r} at iteration "
            f"{self.now.iteration or 0:,} ({describe_process(self._supervisor.pid)})"
        )
        self._kill(f"{self._context.plan.engine.title} has stalled: {self._stalled}")

    def _check_log_size(self) -> None:
        if not self._log_size.has_new_problem():
            return
        if self._log_size.is_flood:
            self._kill(self._log_size.problem)
        else:  # there is time for a snapshot
            self._context.say(self._log_size.problem)
            self._context.signals.stop()

    def _take_requests(self) -> None:
        requests, signals = self._context.requests.take(), self._context.signals
        if control.STOP in requests and not signals.stop_requested:
            self._context.say("another shell asked to stop")
            signals.stop()
        if control.SNAPSHOT in requests:
            signals.snapshot()

    def _kill(self, why: str) -> None:
        self._context.say(why)
        self._supervisor.kill()

    def _write_state(self, phase: str) -> None:
        self._state_due = time.monotonic() + _STATE_S
        context = self._context
        state = state_values(
            context.plan,
            self.now,
            self._tracker.rate,
            phase=phase,
            errors=self._errors,
            newest=context.keeper.newest,
            best=context.best.best,
        )
        counts = {"num_snapshots": [self._number, self._num_snapshots], "starts": self._number}
        write_state(context.run, {**state, **counts})
