"""One start of Caffe, from its first line to its verdict."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from irv2caffe import system
from irv2caffe.atomic import unwritable
from irv2caffe.log.read import events
from irv2caffe.train.run import progress
from irv2caffe.train.run.caffe_log import LogSizeWatch, RawLog
from irv2caffe.train.run.metrics_jsonl import MetricsFile
from irv2caffe.train.run.stall_watch import StallWatch, evidence
from irv2caffe.train.run.supervisor import Supervisor
from irv2caffe.train.run.tracker import Row, StartState, Tracker
from irv2caffe.train.run.verdict import Ending, Outcome, Verdict, judge
from irv2caffe.train.run_dir import control
from irv2caffe.train.run_dir.lock import Owner, read_owner, start_time, write_owner
from irv2caffe.train.run_dir.records import write_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from irv2caffe.caffe.command import Command
    from irv2caffe.train.plan.plan import Plan
    from irv2caffe.train.run.options import SupervisionOptions
    from irv2caffe.train.run.plotting import Plotter
    from irv2caffe.train.run.signals import Signals
    from irv2caffe.train.run_dir.retention import SnapshotKeeper
    from irv2caffe.train.run_dir.run_dir import RunDir

_STATE_S = 2.0
_STATUS_S = 1.0
# BVLC hangs after a SIGINT with several GPUs: its workers wait for the one that stopped. By then
# it has said so and its files are whole.
_GRACE_S = 10.0
# What the thread that writes snapshots says next; other threads' lines may come in between.
_AFTER_SNAPSHOT = (events.Loss, events.TestStart, events.StoppedEarly, events.Done)


@dataclass(frozen=True)
class Helpers:
    """What outlives a start."""

    keeper: SnapshotKeeper
    watch: StallWatch
    plotter: Plotter
    say: Callable[[str], None]
    status: Callable[[str], None]
    requests: control.Requests
    signals: Signals


class TrainingSession:
    """Follows one process of Caffe and acts on what it says."""

    def __init__(
        self, run: RunDir, plan: Plan, options: SupervisionOptions, helpers: Helpers, number: int
    ) -> None:
        self._run = run
        self._plan = plan
        self._options = options
        self._helpers = helpers
        self._number = number
        self._metrics = MetricsFile(run.metrics, number, plan.effective_batch, plan.num_train)
        self._tracker = Tracker(self._row)
        self._error: float | None = None
        self._supervisor: Supervisor | None = None
        self._next_snapshot = time.monotonic() + (options.snapshot_s or float("inf"))
        self._next_state = self._next_status = 0.0
        self._kill_at: float | None = None
        self._line_since_snapshot = False
        self._log_watch: LogSizeWatch | None = None
        self._stalled = ""
        self._diverged = False
        self._num_snapshots = 0
        self._has_begun = False
        self.exit_status = 0

    @property
    def now(self) -> StartState:
        """What the process has done."""
        return self._tracker.now

    def run(self, command: Command, lock: IO[str]) -> Verdict:
        """Starts Caffe, follows it to its end and judges.

        Raises:
            CaffeFailedError: it cannot be started.
            OutputError: the run folder cannot be written.
        """
        path = self._run.log_of(self._number)
        try:
            log = RawLog(path, self._run.log)
        except OSError as error:
            raise unwritable(path, error) from error
        self._log_watch = LogSizeWatch(log, self._free_bytes, self._snapshot_bytes)
        self._supervisor = supervisor = Supervisor(
            command,
            log,
            self._helpers.signals,
            on_line=self._line,
            on_poll=self._poll,
            keep_open=(lock.fileno(),),
        )
        self._helpers.watch.start()
        try:
            self.exit_status = supervisor.run(lambda: self._started(command, lock))
        finally:
            log.close()
        self._tracker.finish()
        self._metrics.flush()
        self._look_at_snapshot(complete=True)
        verdict = judge(self.now, self._outcome())
        if verdict.ending is Ending.FINISHED:
            self._helpers.keeper.set_healthy(self._plan.solver.max_iter)
        self._write_state("ended")
        return verdict

    def _started(self, command: Command, lock: IO[str]) -> None:
        """Says in the lock which process it is, for a trainer that finds it without us."""
        assert self._supervisor is not None
        pid = self._supervisor.pid
        owner = read_owner(self._run)
        if owner is not None:
            write_owner(
                lock,
                Owner(owner.host, owner.pid, owner.began, pid, start_time(pid), command.container),
            )

    def _outcome(self) -> Outcome:
        keeper, supervisor = self._helpers.keeper, self._supervisor
        assert supervisor is not None
        return Outcome(
            exit_status=self.exit_status,
            stop_requested=self._helpers.signals.stop_requested,
            stalled=self._stalled,
            abandoned=supervisor.abandoned,
            diverged=self._diverged,
            flooded=self._log_watch.words if self._log_watch is not None else "",
            newest=keeper.newest.iteration if keeper.newest is not None else None,
            max_iter=self._plan.solver.max_iter,
            free_bytes=self._free_bytes(),
            pair_bytes=self._snapshot_bytes(),
        )

    def _snapshot_bytes(self) -> int | None:
        disk = self._plan.disk
        return self._helpers.keeper.last_bytes or (disk.pair_bytes if disk is not None else None)

    def _free_bytes(self) -> int | None:
        with suppress(OSError):
            return system.free_bytes(self._run.snapshots)
        return None

    def _line(self, text: str) -> None:
        event = self._tracker.line(text)
        is_display = isinstance(event, events.Loss)
        self._helpers.watch.line(self.now.phase, is_display=is_display)
        if isinstance(event, events.Snapshot) and event.is_state:
            self._look_at_snapshot(complete=True)  # the one before, where nobody had the time
            signals = self._helpers.signals
            self._helpers.keeper.add(event.path, requested=signals.snapshot_requested)
            signals.snapshot_requested = False
            self._line_since_snapshot = False
        elif isinstance(event, _AFTER_SNAPSHOT):
            self._line_since_snapshot = True

    def _row(self, row: Row) -> None:
        self._metrics.add(row)
        if row["kind"] == "test" and row["net"] == 0:
            self._error = row["top1_error"]
            self._helpers.plotter.refresh()

    def _poll(self) -> None:
        """Ten times a second."""
        self._metrics.flush()
        now_s = time.monotonic()
        self._look_at_snapshot(complete=self._line_since_snapshot)
        self._tell_health()
        self._check_divergence()
        self._check_stop(now_s)
        self._check_stall()
        self._check_log()
        self._answer()
        if now_s >= self._next_snapshot and self.now.phase == "train":
            assert self._supervisor is not None
            self._supervisor.send(signal.SIGHUP)
            self._next_snapshot = now_s + self._options.snapshot_s
        if now_s >= self._next_status and self.now.iteration is not None:
            self._next_status = now_s + _STATUS_S
            self._helpers.status(self._progress())
        just_began = self.now.iteration is not None and not self._has_begun
        if just_began or now_s >= self._next_state:
            self._has_begun = self.now.iteration is not None
            self._write_state(self.now.phase)

    def _progress(self) -> str:
        return progress.line(self._plan, self.now, self._tracker.rate, self._error)

    def _look_at_snapshot(self, *, complete: bool) -> None:
        keeper = self._helpers.keeper
        if keeper.is_pending and keeper.verify(complete=complete):
            self._num_snapshots += 1
            self._next_snapshot = time.monotonic() + (self._options.snapshot_s or float("inf"))
            self._write_state(self.now.phase)

    def _tell_health(self) -> None:
        now = self.now
        goes_on = now.diverged is not None and self._options.on_divergence == "continue"
        healthy = now.iteration if goes_on else now.last_healthy
        if healthy is not None:
            self._helpers.keeper.set_healthy(healthy)

    def _check_divergence(self) -> None:
        if self.now.diverged is None or self._diverged or self._options.on_divergence == "continue":
            return
        # Killed, not stopped: a last snapshot would be one of weights that are lost.
        self._diverged = True
        self._helpers.say(
            f"the loss was lost at iteration {self.now.diverged:,}: {self.now.diverged_how}"
        )
        self._kill()

    def _check_stop(self, now_s: float) -> None:
        """After an end that Caffe has announced, it may hang."""
        now = self.now
        if not (now.stopped or now.done) or self._helpers.keeper.is_pending:
            return
        if self._kill_at is None:
            self._kill_at = now_s + _GRACE_S
        elif now_s >= self._kill_at:
            what = "has stopped and written its snapshot" if now.stopped else "is done"
            self._helpers.say(f"Caffe {what}, but hangs: killed")
            self._kill_at = float("inf")
            self._kill()

    def _check_stall(self) -> None:
        watch = self._helpers.watch
        if self._stalled or not watch.is_stalled():
            return
        assert self._supervisor is not None
        seen = evidence(self._supervisor.pid)
        self._stalled = (
            f"no line for {watch.silence_s:.0f} s in phase {self.now.phase!r} at iteration "
            f"{self.now.iteration or 0:,} ({seen})"
        )
        self._helpers.say(f"Caffe has stalled: {self._stalled}")
        self._kill()

    def _check_log(self) -> None:
        if self._log_watch is None or not self._log_watch.look():
            return
        self._helpers.say(self._log_watch.words)
        if self._log_watch.is_flood:
            self._kill()
        else:  # there is time for a snapshot
            self._helpers.signals.stop()

    def _answer(self) -> None:
        asked = self._helpers.requests.take()
        signals = self._helpers.signals
        if control.STOP in asked and not signals.stop_requested:
            self._helpers.say("another shell asked to stop")
            signals.stop()
        if control.SNAPSHOT in asked:
            signals.snapshot()

    def _kill(self) -> None:
        assert self._supervisor is not None
        self._supervisor.kill()

    def _write_state(self, phase: str) -> None:
        self._next_state = time.monotonic() + _STATE_S
        now, newest = self.now, self._helpers.keeper.newest
        write_state(
            self._run,
            {
                "phase": phase,
                "progress": self._progress() if now.iteration is not None else None,
                "iteration": now.iteration,
                "max_iter": self._plan.solver.max_iter,
                "loss": now.loss if now.diverged is None else None,
                "lr": now.lr,
                "top1_error": self._error,
                "seconds_left": progress.seconds_left(
                    self._plan, now.iteration or 0, self._tracker.rate
                ),
                "snapshot": str(newest.state) if newest is not None else None,
                "num_snapshots": [self._number, self._num_snapshots],
                "starts": self._number,
                "updated": datetime.now().astimezone().isoformat(timespec="seconds"),
            },
        )
