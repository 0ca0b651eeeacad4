"""Whether a silent Caffe still works, by its own rhythm."""

from __future__ import annotations

import os
import time
from pathlib import Path

from irv2caffe.system import stat_fields

# Silence longer than this many of the longest silences so far is a stall.
_TIMES_LONGEST = 10.0
_FLOOR_S = 600.0
# Before the first of its kind nothing is known: a first test of 50,000 images on a CPU takes hours.
_FIRST_S = {"start": 3600.0, "train": 6 * 3600.0, "test": 12 * 3600.0}


class StallWatch:
    """Knows the longest silence of each phase, and tells when one is longer than plausible.

    Attributes:
        limit_s: told by the user; None takes the rhythm, 0 never stalls.
    """

    def __init__(self, limit_s: float | None = None) -> None:
        self.limit_s = limit_s
        self._longest: dict[str, float] = {}
        self._num_displays = 0
        self._since = time.monotonic()
        self._phase = "start"

    def start(self) -> None:
        """A process of Caffe begins; what was learned of earlier ones stays."""
        self._since = time.monotonic()
        self._phase = "start"

    def line(self, phase: str, *, is_display: bool = False) -> None:
        """A line came, and the run is in this phase now; the silence was of the one before.

        Args:
            phase: ``start``, ``train`` or ``test``.
            is_display: it displays the training loss: its lines come at once, and the next ones
                after as many iterations as ``display`` says.
        """
        self._num_displays += is_display
        now = time.monotonic()
        silence = now - self._since
        if silence > self._longest.get(self._phase, 0.0):
            self._longest[self._phase] = silence
        self._since = now
        self._phase = phase

    @property
    def silence_s(self) -> float:
        """Since the last line."""
        return time.monotonic() - self._since

    @property
    def patience_s(self) -> float:
        """How long a silence may last now; infinite where the user wants that."""
        if self.limit_s is not None:
            return self.limit_s or float("inf")
        longest = self._longest.get(self._phase)
        # The lines of a start come at once; how long training and tests are silent, only they say.
        is_known = longest is not None and (self._phase != "train" or self._num_displays > 1)
        if longest is None or not is_known or self._phase == "start":
            return _FIRST_S.get(self._phase, _FLOOR_S)
        return max(_FLOOR_S, _TIMES_LONGEST * longest)

    def is_stalled(self) -> bool:
        """Whether the silence is longer than plausible."""
        return self.silence_s > self.patience_s


def evidence(pid: int) -> str:
    """What a silent process does, in a phrase: how busy it is, and how its threads wait."""
    first = _cpu_ticks(pid)
    time.sleep(0.5)
    second = _cpu_ticks(pid)
    if first is None or second is None:
        return "its process cannot be looked at"
    busy = (second - first) / os.sysconf("SC_CLK_TCK") / 0.5
    states = [_state(task) for task in Path(f"/proc/{pid}/task").glob("*")]
    stopped = sum(state in {"T", "t"} for state in states)
    waiting = sum(state == "D" for state in states)
    words = f"{len(states)} threads, {100 * busy:.0f} % of a core"
    if stopped:
        words += ", stopped by a signal"
    elif waiting:
        words += f", {waiting} waiting for a disk or a driver"
    return words


def _cpu_ticks(pid: int) -> int | None:
    parts = stat_fields(Path(f"/proc/{pid}"))
    return int(parts[11]) + int(parts[12]) if parts else None


def _state(task: Path) -> str:
    parts = stat_fields(task)
    return parts[0] if parts else ""
