"""Panel: a few lines at the bottom of a terminal that show the state of a long task.

It is drawn by whoever calls it, without a thread, and only what has changed is written. Between two
drawings the cursor rests at its start: a terminal that is made narrower wraps the lines anew, and
however many there are then, all of them are below the cursor.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BAR_WIDTH = 40  # as that of the other commands
_LEAST_BAR = 10
_GAP = "  "
_ERASE = "\r\x1b[J"
_END_OF_LINE = "\x1b[K"
_DONE_COLOR, _REST_COLOR, _NO_COLOR = "\x1b[38;5;197m", "\x1b[38;5;237m", "\x1b[0m"
_FALLBACK = os.terminal_size((80, 24))


@dataclass(frozen=True)
class Status:
    """The state of a long task.

    Attributes:
        share: what is done, from 0 to 1.
        parts: figures, the most important first; none before the task has begun.
        left: the time left, or empty.
        note: what it is doing, if that is unusual; shown on a terminal only.
    """

    share: float
    parts: tuple[str, ...]
    left: str = ""
    note: str = ""

    def line(self) -> str:
        """The figures and the time left in one line."""
        return ", ".join([*self.parts, self.left] if self.left else self.parts)


class Panel:
    """Draws the newest status; messages appear above it."""

    def __init__(self, stream: TextIO) -> None:
        """Draws nothing yet.

        Args:
            stream: of a terminal.
        """
        self._stream = stream
        self._status: Status | None = None
        self._drawn: tuple[int, list[str]] = (0, [])  # the width then, and the lines
        self._has_colors = "NO_COLOR" not in os.environ
        self._line, self._rest = ("━", "━") if _can_write(stream, "━") else ("#", "-")

    def show(self, status: Status) -> None:
        """Draws a status, unless it is on the screen already."""
        self._status = status
        self._write(self._redrawn())

    def message(self, text: str) -> None:
        """Writes lines above the panel."""
        erased = self._erased()
        self._write(f"{erased}{text}\n{self._redrawn()}")

    def close(self) -> None:
        """Removes it from the screen."""
        self._status = None
        self._write(self._erased())

    def _write(self, text: str) -> None:
        if text:  # in one piece: nothing flickers
            self._stream.write(text)
            self._stream.flush()

    def _erased(self) -> str:
        was_drawn, self._drawn = bool(self._drawn[1]), (0, [])
        return _ERASE if was_drawn else ""

    def _redrawn(self) -> str:
        if self._status is None:
            return ""
        width, height = _size(self._stream)
        lines = layout(self._status, width - 1, max(1, height - 1), self._bar)
        if (width, lines) == self._drawn:
            return ""
        erased = self._erased() if width != self._drawn[0] else ""
        self._drawn = (width, lines)
        up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
        text = f"{_END_OF_LINE}\r\n".join(lines)
        return f"{erased}\r{text}\x1b[J{up}\r"

    def _bar(self, share: float, width: int) -> str:
        num_done = min(width, int(share * width))
        if not self._has_colors:
            return self._line * num_done + "-" * (width - num_done)
        rest = self._rest * (width - num_done)
        return f"{_DONE_COLOR}{self._line * num_done}{_REST_COLOR}{rest}{_NO_COLOR}"


def layout(status: Status, width: int, height: int, bar: Callable[[float, int], str]) -> list[str]:
    """The lines of a status.

    Args:
        status: the status.
        width: columns of the longest line.
        height: the most lines; the less important figures are left out.
        bar: draws a bar of a share and a width.
    """
    if not status.parts:
        return _packed([status.note], width)
    percent = f"{int(100 * status.share):3} %"
    words = _fitting([percent, *filter(None, (status.note, status.left))], width - _LEAST_BAR - 1)
    room = min(_BAR_WIDTH, width - len(words) - 1)
    if room < _LEAST_BAR or height == 1:  # too narrow for a bar, or too low for more
        note = [status.note] if status.note else []
        return _packed([percent.strip(), *note, *status.parts], width)[:height]
    first = f"{bar(status.share, room)} {words}"
    return [first, *_packed(status.parts, width)][:height]


def _fitting(words: Sequence[str], width: int) -> str:
    """As many of the words as fit, the first one at any rate."""
    text = words[0]
    for word in words[1:]:
        if len(text) + len(_GAP) + len(word) <= width:
            text += _GAP + word
    return text


def _packed(parts: Sequence[str], width: int) -> list[str]:
    """The parts in lines; one that is longer than a line is cut."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(_GAP) + len(part) <= width:
            lines[-1] += _GAP + part
        else:
            lines.append(part[: max(0, width)])
    return lines


def _size(stream: TextIO) -> os.terminal_size:
    """Columns and lines of the terminal now, whatever COLUMNS said when this program started."""
    try:
        found = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return _FALLBACK
    return found if found.columns > 0 and found.lines > 0 else _FALLBACK


def _can_write(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding)
    except (UnicodeError, LookupError):
        return False
    return True
