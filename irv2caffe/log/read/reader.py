"""Reader: reads whole log files, in chunks; :func:`read_log` and :func:`read_lines`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.errors import FormatError
from irv2caffe.log.read.files import read_chunks, resolve_log
from irv2caffe.log.read.line_reader import MAX_LINE_BYTES, LineReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from irv2caffe.log.read.fast.blocks import BlockReader
    from irv2caffe.log.read.history import Log

_MIN_BLOCK_BYTES = 1 << 15  # shorter chunks are read line by line
# Reading stops after so much without a line of Caffe: a device, a decompression bomb, another file.
MAX_FOREIGN_BYTES = 1 << 30
MAX_FOREIGN_LINES = 4_000_000


class Reader(LineReader):
    """Takes the chunks of a file, or lines, one by one and builds the history of the run.

    Long chunks are read a block of lines at a time, with the same result as line by line.
    """

    def __init__(
        self, *, year: int | None = None, on_unknown: Callable[[str], None] | None = None
    ) -> None:
        """Starts an empty history; the arguments are those of :class:`LineReader`."""
        super().__init__(year=year, on_unknown=on_unknown)
        self._rest = b""
        self._blocks: BlockReader | None = None
        self._foreign_bytes = 0
        self._num_caffe_lines = self._num_lines_then = 0

    def feed_bytes(self, data: bytes | memoryview) -> None:
        """Takes the next chunk of a file; :meth:`finish` takes a last line without an end."""
        if len(data) < _MIN_BLOCK_BYTES:
            *lines, rest = (self._rest + bytes(data)).split(b"\n")
            for line in lines:
                self.feed_line(line)
        else:
            end = _last_line_end(data)
            if end:
                self._feed_block(self._rest, memoryview(data)[:end])
            rest = bytes(data[end:]) if end else self._rest + bytes(data[:MAX_LINE_BYTES])
        self._rest = rest[:MAX_LINE_BYTES]
        self._give_up_if_foreign(len(data))

    def finish(self) -> None:
        """Ends the file; further chunks are of another one."""
        if self._rest:
            rest, self._rest = self._rest, b""
            self.feed_line(rest)
        super().finish()

    def read_file(self, path: Path) -> None:
        """Reads a log to its end; a torn compressed file as far as it can be uncompressed.

        Raises:
            MissingInputError: there is no such log.
            FormatError: it is compressed, and no part can be uncompressed.
            InputError: it cannot be read.
        """
        for chunk in read_chunks(resolve_log(path)):
            self.feed_bytes(chunk)
            if self.log.gave_up:
                break
        self.finish()

    def _feed_block(self, *parts: bytes | memoryview) -> None:
        """Takes whole lines."""
        if self._blocks is None:
            from irv2caffe.log.read.fast.blocks import BlockReader

            self._blocks = BlockReader(self)
        self._blocks.feed(*parts)

    def _give_up_if_foreign(self, num_bytes: int) -> None:
        """Sets ``gave_up`` if too much was read since the last line of Caffe."""
        log = self.log
        known = log.num_events + log.num_other
        if known > self._num_caffe_lines:
            self._foreign_bytes, self._num_caffe_lines = 0, known
            self._num_lines_then = log.num_lines
        else:
            self._foreign_bytes += num_bytes
        num_lines = log.num_lines - self._num_lines_then
        log.gave_up = self._foreign_bytes > MAX_FOREIGN_BYTES or num_lines > MAX_FOREIGN_LINES


def _last_line_end(data: bytes | memoryview) -> int:
    """The position after the last line end; 0 if there is none."""
    for length in (MAX_LINE_BYTES, len(data)):
        tail = bytes(data[-length:])
        if b"\n" in tail:
            return len(data) - len(tail) + tail.rindex(b"\n") + 1
    return 0


def read_log(*paths: Path, year: int | None = None) -> Log:
    """Reads the history of a run from one log or several parts of it, plain or compressed.

    Args:
        paths: logs or run folders; ``-`` is standard input. Several are parts of one run, in
            order (rotated files, a file for each process).
        year: of the first line, where glog did not write it.

    Raises:
        MissingInputError: there is no such log.
        FormatError: it has no line of a Caffe training.
        InputError: it cannot be read.
    """
    reader = Reader(year=year)
    for path in paths:
        reader.read_file(path)
    require_caffe_log(reader.log, paths[0])
    return reader.log


def require_caffe_log(log: Log, path: Path) -> None:
    """Raises FormatError if a file had no line of a Caffe training."""
    if log.num_events == 0:
        raise FormatError(
            "it has no line of a Caffe training",
            "give the log of caffe train, or a run folder",
            path=path,
        )


def read_lines(lines: Iterable[str], *, year: int | None = None) -> Log:
    """Reads the history of a run from the lines of its log."""
    reader = Reader(year=year)
    for line in lines:
        reader.feed(line)
    reader.finish()
    return reader.log
