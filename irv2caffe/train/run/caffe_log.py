"""Reads Caffe's log file while Caffe writes it, and watches its size.

Caffe writes into a file, not into a pipe: if this process is killed, Caffe still writes its
snapshot, without a broken pipe, and its last lines are kept. Space behind the end of the file is
reserved, so that its last messages fit even on a full disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from irv2caffe.atomic import atomic_file
from irv2caffe.system import open_for_writing, open_regular
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_POLL_BYTES = 1 << 16  # bounds the memory for a burst of lines
_PIECE_BYTES = 1 << 20
_MAX_LINE_BYTES = 1 << 20
RESERVED_BYTES = 1 << 18
_FALLOC_FL_KEEP_SIZE = 1
_CHECK_INTERVAL_S = 1.0
# With debug_info a large net prints about a megabyte a second.
_FLOOD_S, _FLOOD_BYTES = 5.0, 100 << 20
# A log of this size may be the reason for a full disk.
_LARGE_BYTES = 256 << 20
_LEAST_FREE_BYTES = 64 << 20


class RawLog:
    """The log of one start, which is also appended to the run's concatenated log.

    Attributes:
        writing: the file descriptor that Caffe writes to.
        is_cut: discard unread output when Caffe ends, since it prints without end.
    """

    def __init__(self, path: Path, train_log: Path) -> None:
        """Creates the log file.

        Raises:
            OSError: it cannot be created.
        """
        self._path = path
        self._train_log = train_log
        concatenate_logs(train_log, path.parent)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.writing = open_for_writing(path, os.O_WRONLY | os.O_APPEND | os.O_EXCL)
        self._reading = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._rest = b""
        self._read_bytes = 0
        self._has_failed = False
        self._reserved_to = 0
        self.is_cut = False
        self._reserve()

    @property
    def num_bytes(self) -> int:
        """Bytes that Caffe has written, read or not."""
        return os.fstat(self.writing).st_size

    def poll(self, on_line: Callable[[str], None]) -> bool:
        """Passes on new complete lines; returns whether there may be more at once."""
        piece = os.read(self._reading, _POLL_BYTES)
        if not piece:
            return False
        self._read_bytes += len(piece)
        self._append(piece)
        self._reserve()
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            on_line(line.decode("utf-8", "replace"))
        if len(self._rest) > _MAX_LINE_BYTES:  # not a text log
            self._rest = b""
        return len(piece) == _POLL_BYTES

    def finish(self, on_line: Callable[[str], None]) -> None:
        """Reads the rest after the end of Caffe, and frees the reserved space."""
        if self.is_cut:
            with contextlib.suppress(OSError):
                os.truncate(self._path, self._read_bytes)
        while self.poll(on_line):
            pass
        if self._rest:
            on_line(self._rest.decode("utf-8", "replace"))
            self._rest = b""
        with contextlib.suppress(OSError):
            os.truncate(self._path, self._path.stat().st_size)
        with contextlib.suppress(OSError):
            concatenate_logs(self._train_log, self._path.parent)

    def close(self) -> None:
        """Closes the file."""
        os.close(self.writing)
        os.close(self._reading)

    def _append(self, piece: bytes) -> None:
        """Appends to the concatenated log; the next start completes it after a full disk."""
        if self._has_failed:
            return
        try:
            handle = open_for_writing(self._train_log, os.O_WRONLY | os.O_APPEND)
            with os.fdopen(handle, "ab", buffering=0) as stream:
                self._has_failed = stream.write(piece) != len(piece)
        except OSError:
            self._has_failed = True

    def _reserve(self) -> None:
        if self._read_bytes + RESERVED_BYTES // 2 < self._reserved_to:
            return
        self._reserved_to = self._read_bytes + RESERVED_BYTES
        # Where the file system cannot reserve space, the log is written without it.
        self._libc.fallocate(
            self.writing,
            _FALLOC_FL_KEEP_SIZE,
            ctypes.c_longlong(self._read_bytes),
            ctypes.c_longlong(RESERVED_BYTES),
        )


def concatenate_logs(train_log: Path, logs: Path) -> None:
    """Completes the concatenated log from the logs of all starts, each beginning on a new line.

    Bytes that are there already are kept, unless a power failure left wrong ones.

    Raises:
        OSError: it cannot be written.
    """
    with os.fdopen(open_for_writing(train_log, os.O_RDWR | os.O_APPEND), "r+b") as stream:
        for piece in _pieces(logs):
            there = stream.read(len(piece))
            if piece[: len(there)] != there:
                break
            if len(there) < len(piece):
                stream.write(piece[len(there) :])
        else:
            if not stream.read(1):
                return
    with atomic_file(train_log) as aside, aside.open("wb") as stream:
        stream.writelines(_pieces(logs))


def _pieces(logs: Path) -> Iterator[bytes]:
    for path in sorted(logs.glob("start-*.log"), key=lambda path: (len(path.name), path.name)):
        last = b"\n"
        with open_regular(path) as stream:
            while piece := stream.read(_PIECE_BYTES):
                yield piece
                last = piece[-1:]
        if last != b"\n":
            yield b"\n"


@dataclass
class LogSizeWatch:
    """Checks the size of a log once a second: Caffe may print without end and fill the disk.

    Attributes:
        log: the log of one start.
        free_bytes: returns the free space on its disk, or None where it is unknown.
        snapshot_bytes: returns the space that a snapshot needs, or None.
        problem: a message; empty without a problem.
        is_flood: the log grows so fast that Caffe must be killed; unread output is discarded.
    """

    log: RawLog
    free_bytes: Callable[[], int | None]
    snapshot_bytes: Callable[[], int | None]
    problem: str = field(default="", init=False)
    is_flood: bool = field(default=False, init=False)
    _sizes: list[tuple[float, int]] = field(default_factory=list, init=False)
    _next: float = field(default=0.0, init=False)

    def has_new_problem(self) -> bool:
        """Whether there is a new problem."""
        now = time.monotonic()
        if now < self._next or self.is_flood:
            return False
        self._next = now + _CHECK_INTERVAL_S
        length = self.log.num_bytes
        self._sizes = [
            seen for seen in self._sizes if now - seen[0] <= _FLOOD_S + _CHECK_INTERVAL_S
        ]
        self._sizes.append((now, length))
        since, before = self._sizes[0]
        if now - since >= _FLOOD_S and length - before > _FLOOD_BYTES:
            grown = f"{format_bytes(length - before)} in {now - since:.0f} s"
            self.problem = f"Caffe prints without end: {grown}"
            self.is_flood = self.log.is_cut = True
            return True
        free = self.free_bytes()
        if self.problem or length < _LARGE_BYTES or free is None:
            return False
        if free > (self.snapshot_bytes() or 0) + _LEAST_FREE_BYTES:
            return False
        self.problem = (
            f"the disk is nearly full, {format_bytes(free)} are free, "
            f"and the log takes {format_bytes(length)}"
        )
        return True
