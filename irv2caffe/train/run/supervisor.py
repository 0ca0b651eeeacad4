"""The child process: its log is read as it grows, signals are passed on, its end is told."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from irv2caffe.caffe.docker import kill_container, own_exit_status, remove_container
from irv2caffe.errors import CaffeFailedError
from irv2caffe.system import kill_group

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.caffe.command import Command
    from irv2caffe.train.run.caffe_log import RawLog
    from irv2caffe.train.run.signals import Signals

_POLL_S = 0.1
_PR_SET_PDEATHSIG = 1
# A process that waits in the kernel, for a disk or a driver, does not die of a SIGKILL.
_UNKILLABLE_S = 60.0
# What a user's shell may say to glog must not keep lines out of the log.
GLOG = {"GLOG_logtostderr": "1", "GLOG_minloglevel": "0", "GLOG_log_prefix": "1", "GLOG_v": "0"}


class Supervisor:
    """Runs one command to its end.

    The first SIGINT or SIGTERM is passed to Caffe as SIGINT, on which it writes a snapshot and
    stops; SIGTERM itself would kill it without one (signal_handler.cpp), and is kept from it where
    a scheduler sends it to every process. The second kills its whole process group. SIGHUP is
    passed on: a snapshot, and the training goes on. Where this process is killed, the kernel sends
    Caffe a SIGINT, so that even then nothing is lost.

    Attributes:
        abandoned: the child was killed and does not end.
    """

    def __init__(
        self,
        command: Command,
        log: RawLog,
        signals: Signals,
        *,
        on_line: Callable[[str], None],
        on_poll: Callable[[], None],
        keep_open: tuple[int, ...] = (),
    ) -> None:
        """Prepares a run.

        Args:
            command: what to start.
            log: gets the child's output, byte by byte.
            signals: what is asked of the child.
            on_line: called with every complete line, without its end.
            on_poll: called ten times a second, after the lines.
            keep_open: file descriptors that the child inherits.
        """
        self._command = command
        self._log = log
        self._signals = signals
        self._on_line = on_line
        self._on_poll = on_poll
        self._keep_open = keep_open
        self._child: subprocess.Popen[bytes] | None = None
        self._killed_at: float | None = None
        self.abandoned = False

    @property
    def pid(self) -> int:
        """Of the child; 0 before its start."""
        return self._child.pid if self._child is not None else 0

    def run(self, on_start: Callable[[], None] = lambda: None) -> int:
        """Starts the command, waits for its end; returns its exit status (negative: a signal).

        Raises:
            CaffeFailedError: it cannot be started.
        """
        with self._signals.passed_to(self):
            try:
                self._child = self._start()
                on_start()
                if self._signals.stop_requested:  # it came while the child was being started
                    self._signals.tell_stop()
                self._follow(self._child)
            finally:
                self._end()
                self._log.finish(self._on_line)
        status = -signal.SIGKILL if self.abandoned else self._child.returncode
        return own_exit_status(status) if self._command.container else status

    def _start(self) -> subprocess.Popen[bytes]:
        env = {**self._command.env, **GLOG}
        env.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # numbers are those of nvidia-smi
        try:
            # Its own session: a Ctrl-C on the terminal reaches it once, through us.
            return subprocess.Popen(
                self._command.argv,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=self._log.writing,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self._keep_open,
                preexec_fn=_before_caffe(os.getpid()),  # noqa: PLW1509 - no threads here
            )
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CaffeFailedError(
                f"cannot start {self._command.argv[0]}: {reason}",
                "irv2caffe caffe --which says which Caffe is used",
            ) from error

    def _follow(self, child: subprocess.Popen[bytes]) -> None:
        ends = _EndOf(child)
        while True:
            more = self._log.poll(self._on_line)
            self._on_poll()
            if child.poll() is not None or self._patience_s == 0:
                return
            if not more:
                ends.wait(_POLL_S)

    def send(self, number: int) -> None:
        """Sends the child a signal; docker's client passes it on."""
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child.pid, number)

    def kill(self) -> None:
        """Kills the child's whole process group; its end is then seen by :meth:`run`."""
        if self._child is None or self._child.returncode is not None:
            return
        if self._killed_at is None:
            self._killed_at = time.monotonic()
        if self._command.container:
            kill_container(self._command.container)
        kill_group(self._child)

    @property
    def _patience_s(self) -> float:
        """How long the end of a child that was killed is waited for; infinite before that."""
        if self._killed_at is None:
            return float("inf")
        return max(0.0, self._killed_at + _UNKILLABLE_S - time.monotonic())

    def _end(self) -> None:
        """Ends what is left of the child and of its process group."""
        if self._child is None:
            return
        if self._child.poll() is None:
            self.kill()
            try:
                self._child.wait(self._patience_s)
            except subprocess.TimeoutExpired:
                self.abandoned = True
        kill_group(self._child)
        if self._command.container:
            remove_container(self._command.container)


class _EndOf:
    """Waits for a time, or for the end of a child, whichever is first."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._poll = None
        with contextlib.suppress(AttributeError, OSError):
            self._handle = os.pidfd_open(child.pid)
            self._poll = select.poll()
            self._poll.register(self._handle, select.POLLIN)

    def wait(self, seconds: float) -> None:
        if self._poll is None:
            time.sleep(seconds)
        else:
            self._poll.poll(1000 * seconds)

    def __del__(self) -> None:
        if self._poll is not None:
            os.close(self._handle)


def _before_caffe(parent: int) -> Callable[[], None]:
    """What a child does before it becomes its program.

    It blocks SIGTERM, which systemd and Slurm send to every process of a job: glog would set its
    own handler in the place of one that ignores it, but leaves the mask. And it asks for a SIGINT
    when we are gone.
    """
    prctl = None
    with contextlib.suppress(OSError, AttributeError):  # not Linux
        prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        if prctl is None:
            return
        prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # gone already
            os.kill(os.getpid(), signal.SIGKILL)

    return prepare
