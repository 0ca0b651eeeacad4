"""Writes log lines as Caffe's glog does, on stderr.

The sources (``solver.cpp:239``) are those of Debian's build of Caffe 1.0.
"""

from __future__ import annotations

import math
import re
import sys
import threading
import time
from typing import IO, TYPE_CHECKING

from google.protobuf import text_format

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_lock = threading.Lock()
_WHOLE = re.compile(r"(?<=\d)\.0$", re.MULTILINE)  # C++ prints 1 where Python prints 1.0


class Log:
    """Writes whole lines at once, also from several threads, and flushes them.

    Attributes:
        enabled: False in all processes but the first, whose lines are the log.
    """

    def __init__(self, *, enabled: bool = True, stream: IO[str] | None = None) -> None:
        self.enabled = enabled
        self._stream = stream

    def say(self, source: str, message: str, severity: str = "I") -> None:
        """Writes a message.

        Args:
            source: file and line, such as ``solver.cpp:239``.
            message: may have several lines; only the first one gets the prefix.
            severity: ``I`` for INFO, ``W`` for WARNING.
        """
        if self.enabled:
            self._write(severity, source, message)

    def fatal(self, source: str, message: str) -> None:
        """Writes the last words of this process, whichever it is."""
        self._write("F", source, message)

    def _write(self, severity: str, source: str, message: str) -> None:
        stream = self._stream or sys.stderr
        now = time.time()
        stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now))
        micros = int(now % 1 * 1_000_000)
        prefix = f"{severity}{stamp}.{micros:06d} {threading.get_native_id():5d} {source}] "
        with _lock:
            stream.write(f"{prefix}{message}\n")
            stream.flush()


def number(value: float) -> str:
    """A float as C++ streams print it: six significant digits; ``-nan`` with its sign."""
    if math.isnan(value):
        return "-nan" if math.copysign(1, value) < 0 else "nan"
    return f"{value + 0.0:g}"  # 0 for -0.0, which torch's loss is where Caffe's is 0.0


def dump(message: Any) -> str:
    """A message as protobuf's DebugString prints it, fields in the order of their numbers."""
    return _WHOLE.sub("", text_format.MessageToString(message)).rstrip("\n")


def output_lines(what: str, outputs: Iterable[tuple[str, float, Iterable[float]]]) -> Iterable[str]:
    """The lines of a net's outputs; values of an output with several are numbered on.

    Args:
        what: ``Train`` or ``Test``.
        outputs: name, loss weight and values of each output.
    """
    index = 0
    for name, weight, values in outputs:
        for value in values:
            loss = f" (* {number(weight)} = {number(weight * value)} loss)" if weight else ""
            yield f"    {what} net output #{index}: {name} = {number(value)}{loss}"
            index += 1
