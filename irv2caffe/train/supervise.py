"""The child process: its log is kept as it comes, signals are passed on, its end is told."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from irv2caffe.errors import CaffeFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from irv2caffe.caffe.command import Command


class Supervisor:
    """Runs one command to its end.

    The first SIGINT or SIGTERM is passed to Caffe as SIGINT, on which it writes a snapshot and
    stops; SIGTERM itself would kill it without one (signal_handler.cpp). The second kills its
    whole process group. SIGHUP is passed on: a snapshot, and the training goes on.

    Attributes:
        stop_requested: a signal asked to stop.
    """

    def __init__(self, command: Command, log: Path, on_line: Callable[[str], None]) -> None:
        """Prepares a run.

        Args:
            command: what to start.
            log: gets the child's output, byte by byte, appended.
            on_line: called with every complete line, without its end.
        """
        self._command = command
        self._log = log
        self._on_line = on_line
        self._child: subprocess.Popen[bytes] | None = None
        self.stop_requested = False

    def run(self) -> int:
        """Starts the command, waits for its end; returns its exit status (negative: a signal).

        Raises:
            CaffeFailedError: it cannot be started.
        """
        with self._log.open("ab", buffering=0) as log, self._signals():
            try:
                # Its own session: a Ctrl-C on the terminal reaches it once, through us.
                self._child = subprocess.Popen(
                    self._command.argv,
                    env={**self._command.env, "GLOG_logtostderr": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise CaffeFailedError(
                    f"cannot start {self._command.argv[0]}: {error.strerror}",
                    "irv2caffe caffe --which says which Caffe is used",
                ) from error
            try:
                assert self._child.stdout is not None
                if self.stop_requested:  # it came while the child was being started
                    self._signal(signal.SIGINT)
                self._read(self._child.stdout, log)
                return self._child.wait()
            finally:
                self._kill()

    def _read(self, stream: IO[bytes], log: IO[bytes]) -> None:
        """Keeps and passes on what comes, until the child closes its output."""
        rest = b""
        while chunk := os.read(stream.fileno(), 1 << 16):
            log.write(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._on_line(line.decode("utf-8", "replace"))
        if rest:
            self._on_line(rest.decode("utf-8", "replace"))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Our handlers, for as long as the child runs; only the main thread may set them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {
            signal.SIGINT: self._stop,
            signal.SIGTERM: self._stop,
            signal.SIGHUP: self._pass_on,
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if self.stop_requested:
            self._kill()
        else:
            self.stop_requested = True
            self._signal(signal.SIGINT)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._signal(number)

    def _signal(self, number: int) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def _kill(self) -> None:
        """Ends what is left of the child's process group."""
        if self._child is not None and self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
