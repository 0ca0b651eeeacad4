"""LineReader: builds the history of a run from the lines of its log."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

from irv2caffe.log.read import events
from irv2caffe.log.read.clock import Clock
from irv2caffe.log.read.dump import Dump, kept_text, net_info, solver_fields
from irv2caffe.log.read.history import Log
from irv2caffe.log.read.parse import clean, fork_of, lead_of, parse_message, split_prefix
from irv2caffe.log.read.run_builder import IterationEvent, RunBuilder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from irv2caffe.log.read.events import Event, LogTime

MAX_LINE_BYTES = 1 << 16  # longer lines are not from Caffe and are cut off
_NUM_FORK_LINES = 6  # displays and learning rates of a process that show which fork wrote them
_MAX_OTHER_THREADS = 1000
_STATE = re.compile(r"_iter_(\d{1,18})\.solverstate(?:\.h5)?$", re.ASCII)


class LineReader:
    """Takes the lines of a log one by one and builds the history of the run.

    Of several threads, the first that prints an iteration is taken for the root solver. Iterations
    of others are ignored, unless only another thread continues (logs without their beginning).

    Attributes:
        log: the history so far.
        builder: adds events to the history.
        root: the root solver's thread, or None before the first iteration.
        dump: the net or solver that is being printed, or None.
    """

    def __init__(
        self, *, year: int | None = None, on_unknown: Callable[[str], None] | None = None
    ) -> None:
        """Starts an empty history.

        Args:
            year: of the first line; None takes it from the log if that has one.
            on_unknown: called with every line that is not from Caffe.
        """
        self.log = Log()
        self.builder = RunBuilder(self.log, Clock(year))
        self.root: int | None = None
        self.dump: Dump | None = None
        self._on_unknown = on_unknown
        self._other_threads: deque[IterationEvent] = deque(maxlen=_MAX_OTHER_THREADS)
        self._num_fork_lines = 0
        self._starter: int | None = None  # the thread that started the newest process
        self._old_root: int | None = None  # of an earlier process that may still write

    def feed(self, line: str) -> Event | None:
        """Takes one line; returns its event."""
        log = self.log
        log.num_lines += 1
        line = clean(line)
        time, thread, severity, message = split_prefix(line)
        if self.dump is not None and self._continue_dump(time, thread, message):
            log.num_events += 1
            return None
        event = parse_message((time, thread), severity, message)
        if event is None:
            self._count_other(time, line)
            return None
        log.num_events += 1
        if self._num_fork_lines < _NUM_FORK_LINES and isinstance(
            event, events.Loss | events.LearningRate
        ):
            self._num_fork_lines += 1
            log.fork = log.fork or fork_of(message)
        if isinstance(event, events.SolverDump | events.NetDump):
            self._begin_dump(event, lead_of(line))
        else:
            self._handle(event)
        return event

    def feed_line(self, line: bytes) -> None:
        """Takes one line of a file, without its end."""
        self.feed(line[:MAX_LINE_BYTES].decode("utf-8", "replace"))

    def finish(self) -> None:
        """Ends the file; further lines are of another."""
        self._end_dump()

    def feed_dump(self, text: str) -> int:
        """Takes the first lines of a text that belong to the prototxt being printed.

        Args:
            text: lines with their ends, none of which has a prefix.

        Returns:
            The number of lines taken.
        """
        taken = 0 if self.dump is None else self.dump.add_many(text)
        self.log.num_lines += taken
        self.log.num_events += taken
        return taken

    @property
    def expects_displays(self) -> bool:
        """Whether the next lines are likely displays of a process whose root is known."""
        known = self._num_fork_lines >= _NUM_FORK_LINES
        return known and not self.builder.new_process and self.dump is None

    def skip_to(self, iteration: int, outputs: Iterable[str]) -> None:
        """Continues after displays of the root solver that the fast path added.

        Args:
            iteration: of the last of them.
            outputs: the names of its outputs.
        """
        self.builder.skip_to(iteration, outputs)
        self._other_threads.clear()

    def _count_other(self, time: LogTime | None, line: str) -> None:
        if time is not None:
            self.log.num_other += 1
        elif line.strip():
            self.log.num_unknown += 1
            if self._on_unknown is not None:
                self._on_unknown(line)

    def _handle(self, event: Event) -> None:
        builder = self.builder
        match event:
            case (
                events.Loss()
                | events.LearningRate()
                | events.TestStart()
                | events.Output()
                | events.Score()
            ):
                self._handle_iteration(event)
            case events.Clip(norm=norm) if (
                event.thread == self.root and builder.iteration is not None
            ):
                self.log.clips.iteration.append(builder.iteration)
                self.log.clips.norm.append(norm)
            case events.Waiting(waited_s=seconds):
                # That of a thread that prefetches counts images, in builds of 2015 and 2016.
                if event.thread in {self.root, None}:
                    self.log.add_wait(seconds)
            case events.Resuming(path=path):
                found = _STATE.search(path)
                builder.resume_at = int(found[1]) if found else None
            case events.FileHeader(year=year, month=month):
                builder.clock.set_header_year(year, month)
            case _:
                self.log.record(event)

    def _handle_iteration(self, event: IterationEvent) -> None:
        """Adds an event of the root solver; keeps those of other threads apart."""
        is_new = self.builder.new_process
        if event.thread != self.root and event.thread is not None:
            if not (is_new and isinstance(event, events.Loss | events.TestStart)):
                self._keep_other_thread(event)
                return
            self.root = event.thread
            # The first Caffes printed the learning rate before the loss that shows the root.
            for earlier in self._other_threads:
                if earlier.thread == event.thread and isinstance(earlier, events.LearningRate):
                    self.builder.handle(earlier)
        elif is_new and event.thread == self._old_root is not None:
            self._keep_other_thread(event)
            return
        self._other_threads.clear()
        self.builder.handle(event)

    def _keep_other_thread(self, event: IterationEvent) -> None:
        """Keeps another thread's event; after two displays without the root it becomes the root."""
        self._other_threads.append(event)
        if not isinstance(event, events.Loss):
            return
        self.log.num_other_displays += 1
        if event.thread == self._old_root:
            return
        same = [other for other in self._other_threads if other.thread == event.thread]
        num_displays = sum(isinstance(other, events.Loss) for other in same)
        if num_displays < 2:
            return
        self._other_threads.clear()
        self.builder.new_process = True
        self.root = event.thread
        self.log.num_other_displays -= num_displays
        for other in same:
            self.builder.handle(other)

    def _begin_dump(self, event: Event, lead: str) -> None:
        self._end_dump()
        self.dump = Dump(event.thread, lead, is_net=isinstance(event, events.NetDump))
        if isinstance(event, events.SolverDump):
            self.builder.new_process = True
            # In containers a new process may have the thread numbers of the previous one.
            is_other = event.thread not in {None, self.root, self._starter}
            self._old_root = self.root if is_other else None
            self._starter = event.thread
            self._num_fork_lines = 0
            self.log.start_process()

    def _continue_dump(self, time: LogTime | None, thread: int | None, message: str) -> bool:
        """Adds a line to the prototxt being printed, or ends it; returns whether it was added."""
        assert self.dump is not None
        if time is None and self.dump.add(message):
            return True
        if time is None or self.dump.ends_with(thread, message):
            self._end_dump()
        return False

    def _end_dump(self) -> None:
        ended, self.dump = self.dump, None
        if ended is None:
            return
        if ended.is_net:
            self.log.add_net(net_info(ended.lines))
        else:
            self.log.fields = solver_fields(ended.lines)
            self.log.solver_text = kept_text(ended.lines)
