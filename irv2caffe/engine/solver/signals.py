"""What SIGINT and SIGHUP ask of a training (signal_handler.cpp)."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

Action = Literal["none", "stop", "snapshot"]


class Signals:
    """Notes signals until the training asks for them, after each iteration and each test batch."""

    def __init__(self, sigint: Action = "stop", sighup: Action = "snapshot") -> None:
        self._actions: dict[int, Action] = {signal.SIGINT: sigint, signal.SIGHUP: sighup}
        self._came: set[int] = set()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Notes signals within the block; SIGTERM ends the process as always.

        A launcher starts its ranks with these signals blocked, so that none is lost before.
        """
        before = {number: signal.signal(number, self._note) for number in self._actions}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._actions)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._came.add(number)

    def requested(self) -> Action:
        """The action of a signal that came since the last call; SIGINT before SIGHUP."""
        for number, action in self._actions.items():
            if number in self._came:
                self._came.discard(number)
                return action
        return "none"
