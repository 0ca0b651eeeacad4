"""What signals ask of a trainer, from its first start to its last word."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# Programs that pass a signal on to a process and to its group (timeout) are heard twice.
_REPEAT_S = 1.0


class Child(Protocol):
    """A running Caffe that signals are passed to."""

    def send(self, number: int) -> None:
        """Sends a signal."""

    def kill(self) -> None:
        """Kills it, and all it has started."""


class Signals:
    """Hears signals, and passes them to the Caffe that runs, if one does.

    The first SIGINT or SIGTERM asks for a snapshot and the end; a second one, a second later or
    more, kills. SIGHUP asks for a snapshot.

    Attributes:
        stop_requested: somebody asked to stop, by a signal or from another shell.
        snapshot_requested: somebody asked for a snapshot that was not written yet.
    """

    def __init__(self) -> None:
        """Nobody has asked for anything."""
        self.stop_requested = False
        self.snapshot_requested = False
        self._requested_at = 0.0
        self._child: Child | None = None

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Our handlers, for as long as the block lasts; only the main thread may set them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {
            signal.SIGINT: self._stop,
            signal.SIGTERM: self._stop,
            signal.SIGHUP: self._snapshot,
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                # Who goes on asking to stop has been heard: nothing is left but the last word.
                is_heard = number == signal.SIGTERM and self.stop_requested and callable(handler)
                signal.signal(number, signal.SIG_IGN if is_heard else handler)

    @contextmanager
    def passed_to(self, child: Child) -> Iterator[None]:
        """What is asked for meanwhile is passed to a child."""
        self._child = child
        self.snapshot_requested = False
        try:
            yield
        finally:
            self._child = None

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stop()

    def _snapshot(self, _number: int, _frame: FrameType | None) -> None:
        self.snapshot()

    def stop(self) -> None:
        """Asks to stop with a snapshot; the second time, kills."""
        now = time.monotonic()
        if not self.stop_requested:
            self.stop_requested, self._requested_at = True, now
            self.tell_stop()
        elif self._child is not None and now >= self._requested_at + _REPEAT_S:
            self._child.kill()

    def tell_stop(self) -> None:
        """Tells the child of a stop that was asked for."""
        if self._child is not None:
            self.snapshot_requested = True
            self._child.send(signal.SIGINT)

    def snapshot(self) -> None:
        """Asks for a snapshot; without a Caffe there is nothing to write one of."""
        if self._child is not None:
            self.snapshot_requested = True
            self._child.send(signal.SIGHUP)
