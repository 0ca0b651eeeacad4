"""Detects a Caffe that hangs, by the intervals between its log lines."""

from __future__ import annotations

import os
import time
from pathlib import Path

from irv2caffe.system import stat_fields

# A silence this many times as long as the longest one so far is a stall.
_TIMES_LONGEST = 10.0
_FLOOR_S = 600.0
# Limits while no interval of a phase is known: a test of 50,000 images on a CPU takes hours.
_FIRST_S = {"start": 3600.0, "train": 6 * 3600.0, "test": 12 * 3600.0}


class StallWatch:
    """Measures the longest silence of each phase, and detects a much longer one.

    Attributes:
        limit_s: the user's limit; None derives one from earlier silences, 0 means no limit.
    """

    def __init__(self, limit_s: float | None = None) -> None:
        self.limit_s = limit_s
        self._longest: dict[str, float] = {}
        self._num_displays = 0
        self._since = time.monotonic()
        self._phase = "start"

    def start(self) -> None:
        """Registers a start of Caffe; the silences of earlier starts still count."""
        self._since = time.monotonic()
        self._phase = "start"

    def line(self, phase: str, *, is_display: bool = False) -> None:
        """Registers a log line; the silence before it belongs to the earlier phase.

        Args:
            phase: the phase after the line: ``start``, ``train`` or ``test``.
            is_display: the line displays the loss.
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
        """Seconds since the last line."""
        return time.monotonic() - self._since

    @property
    def patience_s(self) -> float:
        """The longest silence that is not a stall; infinite with ``limit_s`` 0."""
        if self.limit_s is not None:
            return self.limit_s or float("inf")
        longest = self._longest.get(self._phase)
        # A start logs without pauses; only displays and tests show how long those take.
        is_known = longest is not None and (self._phase != "train" or self._num_displays > 1)
        if longest is None or not is_known or self._phase == "start":
            return _FIRST_S.get(self._phase, _FLOOR_S)
        return max(_FLOOR_S, _TIMES_LONGEST * longest)

    def is_stalled(self) -> bool:
        """Whether the silence is too long."""
        return self.silence_s > self.patience_s


def describe_process(pid: int) -> str:
    """Describes a silent process: its CPU use, and what its threads wait for."""
    first = _cpu_ticks(pid)
    time.sleep(0.5)
    second = _cpu_ticks(pid)
    if first is None or second is None:
        return "its process cannot be inspected"
    busy = (second - first) / os.sysconf("SC_CLK_TCK") / 0.5
    tasks = map(stat_fields, Path(f"/proc/{pid}/task").glob("*"))
    states = [fields[0] if fields else "" for fields in tasks]
    text = f"{len(states)} threads, {100 * busy:.0f} % of a core"
    if "T" in states or "t" in states:
        return f"{text}, stopped by a signal"
    waiting = states.count("D")
    return f"{text}, {waiting} waiting for a disk or a driver" if waiting else text


def _cpu_ticks(pid: int) -> int | None:
    parts = stat_fields(Path(f"/proc/{pid}"))
    return int(parts[11]) + int(parts[12]) if parts else None
