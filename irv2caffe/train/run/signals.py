"""Handles signals to the trainer, also between two starts of Caffe."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

# Programs such as timeout signal a process and its group, so that a signal arrives twice.
_REPEAT_S = 1.0
STOPPING_NOW = "stopping now"


class Child(Protocol):
    """A running Caffe that signals are passed to."""

    def send(self, number: int) -> None:
        """Sends a signal."""

    def kill(self) -> None:
        """Kills the process and its children."""


class Signals:
    """Handles signals, and forwards them to Caffe while it runs.

    The first SIGINT or SIGTERM requests a snapshot and the end; another one at least a second
    later kills Caffe. SIGHUP requests a snapshot.

    Attributes:
        stop_requested: a signal or another shell asked to stop.
        snapshot_requested: a snapshot was requested, and is not written yet.
        stopping: what a requested stop waits for; empty without one.
    """

    def __init__(self, *, saves: bool = True) -> None:
        """Starts without requests.

        Args:
            saves: whether the engine writes a snapshot when it is stopped.
        """
        self._saves = saves
        self._messages: list[str] = []
        self.stopping = ""
        self.stop_requested = False
        self.snapshot_requested = False
        self._requested_at = 0.0
        self._child: Child | None = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Installs the handlers during the block; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {
            signal.SIGINT: lambda *_: self.stop(),
            signal.SIGTERM: lambda *_: self.stop(),
            signal.SIGHUP: lambda *_: self.snapshot(),
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                # Further requests to stop must not interrupt the final messages.
                ignore = number == signal.SIGTERM and self.stop_requested and callable(handler)
                signal.signal(number, signal.SIG_IGN if ignore else handler)

    @contextmanager
    def forwarded_to(self, child: Child) -> Iterator[None]:
        """Forwards signals to a child during the block."""
        self._child = child
        self.snapshot_requested = False
        try:
            yield
        finally:
            self._child = None

    def stop(self) -> None:
        """Requests a snapshot and the end; the second time, kills Caffe."""
        now = time.monotonic()
        if not self.stop_requested:
            self.stop_requested, self._requested_at = True, now
            waits = self._saves and self._child is not None
            self.stopping = "stopping: waiting for the snapshot" if waits else "stopping"
            self._messages.append(f"{self.stopping}; a second signal stops at once")
            self.forward_stop()
        elif self._child is not None and now >= self._requested_at + _REPEAT_S:
            if self.stopping != STOPPING_NOW:
                self.stopping = STOPPING_NOW
                self._messages.append(self.stopping)
            self._child.kill()

    def take_messages(self) -> list[str]:
        """The new messages for the user, which a signal handler must not print itself."""
        messages, self._messages = self._messages, []
        return messages

    def forward_stop(self) -> None:
        """Forwards a requested stop to the child."""
        if self._child is not None:
            self.snapshot_requested = True
            self._child.send(signal.SIGINT)

    def snapshot(self) -> None:
        """Requests a snapshot, if Caffe runs."""
        if self._child is not None:
            self.snapshot_requested = True
            self._child.send(signal.SIGHUP)
