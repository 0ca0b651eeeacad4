"""From lines to the history of a run: what belongs together, restarts, whose lines count."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

from irv2caffe.errors import FormatError
from irv2caffe.log.read import dump, events
from irv2caffe.log.read.clock import Clock
from irv2caffe.log.read.columns import TrainPoint
from irv2caffe.log.read.follow import read_into, resolve_log
from irv2caffe.log.read.history import Log, TestPoint
from irv2caffe.log.read.parse import clean, fork_of, lead_of, parse_message, split_prefix
from irv2caffe.log.read.run_builder import IterationEvent, RunBuilder
from irv2caffe.log.read.silence import Silence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from irv2caffe.log.read.events import Event, LogTime
    from irv2caffe.log.read.fast.scan import Scratch, Text

__all__ = ["Log", "Reader", "TestPoint", "TrainPoint", "read_lines", "read_log", "resolve_log"]

MAX_LINE_BYTES = 1 << 16  # a longer one is no line of Caffe's; what is over is dropped
_BULK_BYTES = 1 << 15
_NUM_FIRST = 6  # displays and learning rates of a process that show whose Caffe it is
_STATE = re.compile(r"_iter_(\d{1,18})\.solverstate(?:\.h5)?$", re.ASCII)


class Reader:
    """Takes lines, or pieces of a file, one after the other and keeps the history.

    Of several threads, the one that speaks first of an iteration is the root solver's; what others
    say of iterations does not count, unless it alone goes on (logs whose heads were cut off).
    """

    def __init__(
        self, *, year: int | None = None, on_unknown: Callable[[str], None] | None = None
    ) -> None:
        """An empty history.

        Args:
            year: of the first line; None takes it from the log where that says it.
            on_unknown: called with every line that is not understood and not Caffe's.
        """
        self.log = Log()
        self.builder = RunBuilder(self.log, Clock(year))
        self.root: int | None = None
        self.scratch: Scratch | None = None  # of irv2caffe.log.read.fast.bulk
        self._on_unknown = on_unknown
        self._rest = b""
        self._dump: dump.Dump | None = None
        self._aside: deque[IterationEvent] = deque(maxlen=1000)
        self._num_first = 0
        self._silence = Silence()
        self._starter: int | None = None  # the thread that started the newest process
        self._stale: int | None = None  # the root of one that may still speak

    def feed(self, line: str) -> Event | None:
        """Takes one line; returns its event."""
        log = self.log
        log.num_lines += 1
        line = clean(line)
        time, thread, severity, message = split_prefix(line)
        if self._dump is not None and self._goes_on(time, thread, message):
            log.num_events += 1
            return None
        event = parse_message((time, thread), severity, message)
        if event is None:
            self._count(time, line)
            return None
        log.num_events += 1
        if self._num_first < _NUM_FIRST and isinstance(event, events.Loss | events.LearningRate):
            self._num_first += 1
            log.fork = log.fork or fork_of(message)
        if isinstance(event, events.SolverDump | events.NetDump):
            self._begin_dump(event, lead_of(line))
        else:
            self._take(event)
        return event

    def feed_bytes(self, data: bytes | memoryview) -> None:
        """Takes the next piece of a file; :meth:`finish` takes a last line without an end."""
        if len(data) < _BULK_BYTES:
            *lines, rest = (self._rest + bytes(data)).split(b"\n")
            for line in lines:
                self.feed_line(line)
        else:
            from irv2caffe.log.read.fast.bulk import feed_many

            end = _last_line_end(data)
            if end:
                feed_many(self, self._rest, memoryview(data)[:end])
            rest = bytes(data[end:]) if end else self._rest + bytes(data[:MAX_LINE_BYTES])
        self._rest = rest[:MAX_LINE_BYTES]
        self.log.gave_up = self._silence.lasts(self.log, len(data))

    @property
    def has_enough(self) -> bool:
        """Whether no line of Caffe's came for so long that the rest is not to be read."""
        return self.log.gave_up

    def feed_line(self, line: bytes) -> None:
        """Takes one line of a file, without its end."""
        self.feed(line[:MAX_LINE_BYTES].decode("utf-8", "replace"))

    def finish(self) -> None:
        """The file ends here; what follows is of another."""
        if self._rest:
            rest, self._rest = self._rest, b""
            self.feed_line(rest)
        self._end_dump()

    @property
    def is_steady(self) -> bool:
        """Whether the next lines are likely displays of a process whose ways are known."""
        known = self._num_first >= _NUM_FIRST
        return known and not self.builder.new_process and self._dump is None

    @property
    def in_dump(self) -> bool:
        """Whether a net or a solver is being printed."""
        return self._dump is not None

    def feed_dump(self, lines: Text, place: int) -> int:
        """Takes some lines of the text that is being printed; returns how many were some."""
        if self._dump is None or not self._dump.is_plain:
            return 0
        taken = self._dump.takes_many(lines.unprefixed(place))
        self.log.num_lines += taken
        self.log.num_events += taken
        return taken

    def was_shown(self, iteration: int, outputs: Iterable[str]) -> None:
        """Displays of the root up to this one, which said these outputs, came from outside."""
        self.builder.was_shown(iteration, outputs)
        self._aside.clear()

    def _count(self, time: LogTime | None, line: str) -> None:
        if time is not None:
            self.log.num_other += 1
        elif line.strip():
            self.log.num_unknown += 1
            if self._on_unknown is not None:
                self._on_unknown(line)

    def _take(self, event: Event) -> None:
        builder = self.builder
        match event:
            case (
                events.Loss()
                | events.LearningRate()
                | events.TestStart()
                | events.Output()
                | events.Score()
            ):
                self._told(event)
            case events.Clip(norm=norm) if event.thread == self.root and builder.at is not None:
                self.log.clips.iteration.append(builder.at)
                self.log.clips.norm.append(norm)
            case events.Resuming(path=path):
                found = _STATE.search(path)
                builder.resume_at = int(found[1]) if found else None
            case events.FileHeader(year=year, month=month):
                builder.clock.said_year(year, month)
            case _:
                self.log.note(event)

    def _told(self, event: IterationEvent) -> None:
        """Something of an iteration: counts if it is the root solver's."""
        if event.thread != self.root and event.thread is not None:
            leads = isinstance(event, events.Loss | events.TestStart)
            if self.builder.new_process and leads:
                self.root = event.thread
                self._recall(event.thread)
            else:
                self._set_aside(event)
                return
        elif self.builder.new_process and event.thread == self._stale is not None:
            self._set_aside(event)
            return
        self._aside.clear()
        self.builder.handle(event)

    def _set_aside(self, event: IterationEvent) -> None:
        self.log.num_aside += isinstance(event, events.Loss)
        self._aside.append(event)
        if event.thread != self._stale:
            self._adopt()

    def _recall(self, thread: int) -> None:
        """The first Caffes wrote the learning rate before the loss, and so before we know whose."""
        for event in self._aside:
            if event.thread == thread and isinstance(event, events.LearningRate):
                self.builder.handle(event)

    def _adopt(self) -> None:
        """Another thread displayed twice and the root was silent: it is another process's."""
        last = self._aside[-1].thread
        if not isinstance(self._aside[-1], events.Loss):
            return
        mine = [event for event in self._aside if event.thread == last]
        if sum(isinstance(event, events.Loss) for event in mine) < 2:
            return
        self._aside.clear()
        self.builder.new_process = True
        self.root = last
        self.log.num_aside -= sum(isinstance(event, events.Loss) for event in mine)
        for event in mine:
            self.builder.handle(event)

    def _begin_dump(self, event: Event, lead: str) -> None:
        self._end_dump()
        self._dump = dump.Dump(event.thread, lead, is_net=isinstance(event, events.NetDump))
        if isinstance(event, events.SolverDump):
            self.builder.new_process = True
            # Its threads may have the numbers of the last one's, where containers count anew.
            is_other = event.thread not in {None, self.root, self._starter}
            self._stale = self.root if is_other else None
            self._starter = event.thread
            self._num_first = 0
            self.log.note_process()

    def _goes_on(self, time: LogTime | None, thread: int | None, message: str) -> bool:
        """Whether a line belongs to the dump that was begun; if not, that may end here."""
        assert self._dump is not None
        if time is None and self._dump.takes(message):
            return True
        if time is None or self._dump.ends_with(thread, message):
            self._end_dump()
        return False

    def _end_dump(self) -> None:
        ended, self._dump = self._dump, None
        if ended is None:
            return
        if ended.is_net:
            self.log.note_net(dump.net_info(ended.lines))
        else:
            self.log.fields = dump.solver_fields(ended.lines)


def _last_line_end(data: bytes | memoryview) -> int:
    """Behind the last line end; 0 if there is none."""
    for length in (MAX_LINE_BYTES, len(data)):
        tail = bytes(data[-length:])
        if b"\n" in tail:
            return len(data) - len(tail) + tail.rindex(b"\n") + 1
    return 0


def read_log(*paths: Path, year: int | None = None) -> Log:
    """The history in one log, or in the pieces of one, plain or gzipped, of any length.

    Args:
        paths: logs or run folders; ``-`` is standard input. Several are pieces of one run, in
            order (rotated files, a file for each process).
        year: of the first line, which glog does not always write.

    Raises:
        MissingInputError: nothing there.
        FormatError: no line of it is Caffe's.
        InputError: it cannot be read.
    """
    reader = Reader(year=year)
    for path in paths:
        read_into(reader, path)
    refuse_foreign(reader.log, paths[0])
    return reader.log


def refuse_foreign(log: Log, path: Path) -> None:
    """Raises FormatError if nothing in a file was Caffe's."""
    if log.num_events == 0:
        raise FormatError(
            "no line of it is from a Caffe training",
            "give the log of caffe train, or a run folder",
            path=path,
        )


def read_lines(lines: Iterable[str], *, year: int | None = None) -> Log:
    """The history in lines."""
    reader = Reader(year=year)
    for line in lines:
        reader.feed(line)
    reader.finish()
    return reader.log
