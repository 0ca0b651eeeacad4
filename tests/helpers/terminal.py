"""A terminal: what a program writes to it, as a person sees it; and a program that runs in one."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

_SEQUENCE = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])")
_PATIENCE_S = 300


class Screen:
    """Lines of text and a cursor, as xterm keeps them; a narrower one wraps or cuts its lines."""

    def __init__(self, columns: int, *, rewraps: bool) -> None:
        """An empty screen that never ends at its bottom.

        Args:
            columns: its width.
            rewraps: lines are wrapped anew if the width changes, as most terminals do; else cut.
        """
        self.columns, self.rewraps = columns, rewraps
        self._lines: list[list[str]] = [[]]  # up to a line feed, however many rows that is
        self._line = self._column = 0
        self._rest = ""

    def resize(self, columns: int) -> None:
        if not self.rewraps:
            rows = self._rows()
            here = self._column - self._column % self.columns
            self._line = [row[1:] for row in rows].index((self._line, here))
            self._column = min(self._column - here, columns)
            self._lines = [list(text[:columns]) for text, _, _ in rows]
        self.columns = columns

    def rows(self) -> list[str]:
        """The rows of the screen from its beginning on."""
        return [row.rstrip() for row, _, _ in self._rows()]

    def _rows(self) -> list[tuple[str, int, int]]:
        """Text, line and first column of each row."""
        return [
            ("".join(line[start : start + self.columns]), number, start)
            for number, line in enumerate(self._lines)
            for start in range(0, max(1, len(line)), self.columns)
        ]

    def feed(self, text: str) -> None:
        text, self._rest = self._rest + text, ""
        while text:
            if text[0] == "\x1b":
                match = _SEQUENCE.match(text)
                if match is None:
                    assert len(text) < 10, f"unknown sequence {text[:10]!r}"
                    self._rest = text
                    return
                self._control(match[1], match[2])
                text = text[match.end() :]
            else:
                self._put(text[0])
                text = text[1:]

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column -= self._column % self.columns
        elif character == "\n":
            self._line, self._column = self._line + 1, 0
            if self._line == len(self._lines):
                self._lines.append([])
        elif character == "\b":
            self._column -= 1
        elif character != "\a":
            line = self._lines[self._line]
            line += " " * (self._column + 1 - len(line))
            line[self._column] = character
            self._column += 1

    def _control(self, number: str, kind: str) -> None:
        line = self._lines[self._line]
        if kind == "J":
            assert number in ("", "0")
            del self._lines[self._line + 1 :]
            del line[self._column :]
        elif kind == "K":
            assert number in ("", "0")
            del line[self._column : self._column - self._column % self.columns + self.columns]
        elif kind == "A":
            starts = [(line, start) for _, line, start in self._rows()]
            here = self._column - self._column % self.columns
            row = max(0, starts.index((self._line, here)) - int(number or 1))
            offset = self._column - here
            self._line, start = starts[row]
            self._column = start + offset
        else:
            assert kind == "m" or number.startswith("?"), (number, kind)


class Terminal:
    """A program in a terminal of its own, which takes its keys and shows what it writes."""

    def __init__(self, argv: list[str], columns: int, *, rewraps: bool, **options) -> None:
        self.screen = Screen(columns, rewraps=rewraps)
        self._master, slave = pty.openpty()
        self._set_size(columns)
        # A controlling terminal, so that Ctrl-C becomes a signal.
        self.child = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            **options,
        )
        os.close(slave)

    def resize(self, columns: int) -> None:
        self.read()
        self.screen.resize(columns)
        self._set_size(columns)

    def _set_size(self, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read(self) -> bool:
        """Takes what was written; False once the program has ended."""
        while select.select([self._master], [], [], 0.05)[0]:
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:
                return False
            self.screen.feed(data.decode())
        return True

    def wait_for(self, condition, what: str) -> None:
        """Until the screen is as it should be."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            is_open = self.read()
            if condition(self.screen.rows()):
                return
            assert is_open, f"ended before {what}: {self.screen.rows()[-20:]}"
        raise AssertionError(f"waited in vain for {what}: {self.screen.rows()[-20:]}")

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self._master)
