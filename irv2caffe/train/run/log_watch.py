"""Whether a log is still one of a training: a Caffe that prints without end fills the disk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.train.run.caffe_log import RawLog

_LOOK_S = 1.0
# With debug_info a large net prints about a megabyte a second.
_FLOOD_S, _FLOOD_BYTES = 5.0, 100 << 20
# A log of this size is looked at when the disk gets full: it may be the reason.
_LARGE_BYTES = 256 << 20
_LEAST_FREE_BYTES = 64 << 20


class LogWatch:
    """Looks at the size of a log once a second.

    Attributes:
        words: what is wrong; empty where nothing is.
        is_flood: it comes so fast that nothing but a kill helps; what was not read is thrown away.
    """

    def __init__(
        self,
        log: RawLog,
        free_bytes: Callable[[], int | None],
        snapshot_bytes: Callable[[], int | None],
    ) -> None:
        """Nothing is seen yet.

        Args:
            log: of one start.
            free_bytes: on its disk, or None where that is not known.
            snapshot_bytes: that must stay free for one, or None.
        """
        self._log = log
        self._free_bytes = free_bytes
        self._snapshot_bytes = snapshot_bytes
        self._next = 0.0
        self._seen: list[tuple[float, int]] = []
        self.words = ""
        self.is_flood = False

    def look(self) -> bool:
        """Whether something is newly wrong."""
        now = time.monotonic()
        if now < self._next or self.is_flood:
            return False
        self._next = now + _LOOK_S
        length = self._log.num_bytes
        self._seen = [seen for seen in self._seen if now - seen[0] <= _FLOOD_S + _LOOK_S]
        self._seen.append((now, length))
        since, before = self._seen[0]
        if now - since >= _FLOOD_S and length - before > _FLOOD_BYTES:
            grown = f"{format_bytes(length - before)} in {now - since:.0f} s"
            self.words = f"Caffe prints without end: {grown}"
            self.is_flood = self._log.is_cut = True
            return True
        free = self._free_bytes()
        if self.words or length < _LARGE_BYTES or free is None:
            return False
        if free > (self._snapshot_bytes() or 0) + _LEAST_FREE_BYTES:
            return False
        self.words = (
            f"the disk is nearly full, {format_bytes(free)} are free, and the log takes "
            f"{format_bytes(length)}"
        )
        return True
