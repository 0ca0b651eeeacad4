"""Runs Caffe as a child process: starts it, follows its log, waits for its end.

start     -> running   a process group of its own, with the log file as its output
running   -> stopping  the first SIGINT or SIGTERM: SIGINT to Caffe, a snapshot follows
running, stopping -> killed  :meth:`Supervisor.kill`: SIGKILL to the whole process group
killed    -> abandoned the process does not end within a minute: a disk or a driver hangs
any       -> ended     the exit status is known, the rest of the log is read
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass, field
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
# SIGKILL has no effect while a process waits in the kernel, for a disk or a driver.
_UNKILLABLE_S = 60.0
# Overrides glog's variables in the user's environment, which could suppress lines of the log.
GLOG = {"GLOG_logtostderr": "1", "GLOG_minloglevel": "0", "GLOG_log_prefix": "1", "GLOG_v": "0"}


@dataclass
class Supervisor:
    """Runs one command to its end.

    The first SIGINT or SIGTERM is forwarded as SIGINT, on which Caffe writes a snapshot and stops;
    SIGTERM would end it without one (signal_handler.cpp), and is blocked in the child, since
    schedulers send it to every process. The second one kills the process group. SIGHUP is
    forwarded: Caffe writes a snapshot and goes on. If this process is killed, the kernel sends
    Caffe a SIGINT, so that it writes a snapshot even then.

    Attributes:
        command: the command to start.
        log: receives the output of the child.
        signals: forwarded to the child.
        on_line: called with every complete line, without the line break.
        on_poll: called ten times a second, after the lines.
        keep_open: file descriptors that the child inherits.
        abandoned: the child was killed, and does not end.
    """

    command: Command
    log: RawLog
    signals: Signals
    on_line: Callable[[str], None]
    on_poll: Callable[[], None]
    keep_open: tuple[int, ...] = ()
    abandoned: bool = field(default=False, init=False)
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _killed_at: float | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """Process number of the child; 0 before its start."""
        return self._child.pid if self._child is not None else 0

    def run(self, on_start: Callable[[], None] = lambda: None) -> int:
        """Runs the command to its end; returns its exit status, negative for a signal.

        Raises:
            CaffeFailedError: it cannot be started.
        """
        with self.signals.forwarded_to(self):
            try:
                self._child = self._start()
                on_start()
                if self.signals.stop_requested:  # it came while the child was being started
                    self.signals.forward_stop()
                self._follow(self._child)
            finally:
                self._end()
                self.log.finish(self.on_line)
        status = -signal.SIGKILL if self.abandoned else self._child.returncode
        return own_exit_status(status) if self.command.container else status

    def _start(self) -> subprocess.Popen[bytes]:
        env = {**self.command.env, **GLOG}
        env.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as nvidia-smi counts
        try:
            # In its own session it gets a Ctrl-C on the terminal only once, from us.
            return subprocess.Popen(
                self.command.argv,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=self.log.writing,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self.keep_open,
                preexec_fn=_before_caffe(os.getpid()),  # noqa: PLW1509 - no threads here
            )
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CaffeFailedError(
                f"cannot start {self.command.argv[0]}: {reason}",
                "irv2caffe caffe --which shows which Caffe is used",
            ) from error

    def _follow(self, child: subprocess.Popen[bytes]) -> None:
        with contextlib.ExitStack() as stack:
            poll = select.poll()  # without a descriptor it only waits
            with contextlib.suppress(AttributeError, OSError):  # without pidfds: a fixed interval
                pidfd = os.pidfd_open(child.pid)
                stack.callback(os.close, pidfd)
                poll.register(pidfd, select.POLLIN)
            while True:
                more = self.log.poll(self.on_line)
                self.on_poll()
                if child.poll() is not None or self._kill_timeout_s == 0:
                    return
                if not more:
                    poll.poll(1000 * _POLL_S)  # until the child ends, at most

    def send(self, number: int) -> None:
        """Sends the child a signal; docker's client forwards it."""
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child.pid, number)

    def kill(self) -> None:
        """Kills the child's whole process group; :meth:`run` then returns."""
        if self._child is None or self._child.returncode is not None:
            return
        if self._killed_at is None:
            self._killed_at = time.monotonic()
        if self.command.container:
            kill_container(self.command.container)
        kill_group(self._child)

    @property
    def _kill_timeout_s(self) -> float:
        """Seconds left to wait for a killed child; infinite while it is not killed."""
        if self._killed_at is None:
            return float("inf")
        return max(0.0, self._killed_at + _UNKILLABLE_S - time.monotonic())

    def _end(self) -> None:
        """Ends the child and the rest of its process group."""
        if self._child is None:
            return
        if self._child.poll() is None:
            self.kill()
            try:
                self._child.wait(self._kill_timeout_s)
            except subprocess.TimeoutExpired:
                self.abandoned = True
        kill_group(self._child)
        if self.command.container:
            remove_container(self.command.container)


def _before_caffe(parent: int) -> Callable[[], None]:
    """Returns a function that prepares the child process before it executes Caffe.

    It blocks SIGTERM, which systemd and Slurm send to every process of a job: glog replaces a
    handler that ignores it, but keeps the mask. And it asks the kernel for a SIGINT when this
    process ends.
    """
    prctl = None
    with contextlib.suppress(OSError, AttributeError):  # not Linux
        prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        if prctl is None:
            return
        prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # the parent has ended already
            os.kill(os.getpid(), signal.SIGKILL)

    return prepare
