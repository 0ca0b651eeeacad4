"""When to stop reading: no line of Caffe's comes any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irv2caffe.log.read.history import Log

# After so much there is none to come: a bomb, a device, another kind of file.
MAX_BYTES = 1 << 30
MAX_LINES = 4_000_000


class Silence:
    """How much was read since the last line of Caffe's."""

    def __init__(self) -> None:
        self._bytes = 0
        self._known = 0
        self._num_lines = 0

    def lasts(self, log: Log, num_bytes: int) -> bool:
        """Whether it is too long, after so many more bytes."""
        known = log.num_events + log.num_other
        if known > self._known:
            self._bytes, self._known, self._num_lines = 0, known, log.num_lines
        else:
            self._bytes += num_bytes
        return self._bytes > MAX_BYTES or log.num_lines - self._num_lines > MAX_LINES
