"""From lines to the history of a run: what belongs together, restarts, whose lines count."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

from irv2caffe.errors import FormatError
from irv2caffe.log import dump, events
from irv2caffe.log.clock import Clock
from irv2caffe.log.columns import Series, TrainPoint
from irv2caffe.log.follow import read_into, resolve_log
from irv2caffe.log.history import Log, Piece, TestPoint
from irv2caffe.log.parse import clean, fork_of, parse_message, split_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from irv2caffe.log.events import Event, LogTime

__all__ = ["Log", "Reader", "TestPoint", "TrainPoint", "read_lines", "read_log", "resolve_log"]

MAX_LINE_BYTES = 1 << 16  # a longer one is no line of Caffe's; what is over is dropped
_MAX_OUTPUTS = 256
_MAX_WARNINGS = 50
_BULK_BYTES = 1 << 15
_STATE = re.compile(r"_iter_(\d{1,18})\.solverstate(?:\.h5)?$", re.ASCII)
_Told = events.Loss | events.LearningRate | events.TestStart | events.Output


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
        self.clock = Clock(year)
        self._on_unknown = on_unknown
        self._rest = b""
        self._dump: list[str] | None = None
        self._dump_is_net = False
        self._dump_thread: int | None = None
        self._new_process = True
        self._resume_at: int | None = None
        self.root: int | None = None
        self._aside: deque[_Told] = deque(maxlen=1000)
        self._at: int | None = None
        self._shown: int | None = None  # the last display of this process
        self._tested_since = False
        self._pending_lr: tuple[int, float] | None = None
        self._num_displays = 0
        self._totals: dict[str, tuple[float, int]] = {}

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
        if self._num_displays < 6 and isinstance(event, events.Loss | events.LearningRate):
            self._num_displays += 1
            log.fork = log.fork or fork_of(message)
        self._take(event)
        return event

    def feed_bytes(self, data: bytes) -> None:
        """Takes the next piece of a file; :meth:`finish` takes a last line without an end."""
        data = self._rest + data if self._rest else data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest = self._rest[:MAX_LINE_BYTES]
        whole = data[:end]
        if len(whole) >= _BULK_BYTES:
            from irv2caffe.log.bulk import feed_many

            feed_many(self, whole)
            return
        for line in whole.split(b"\n")[:-1]:
            self.feed_line(line)

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
        return self._num_displays >= 6 and not self._new_process and self._dump is None

    @property
    def shown(self) -> int | None:
        """The iteration of the last display of this process."""
        return self._shown

    @property
    def at(self) -> int:
        """The newest iteration of this process that was displayed or tested."""
        return self._at or 0

    @property
    def tested_since(self) -> bool:
        """Whether a test came after the last display."""
        return self._tested_since

    def was_shown(self, iteration: int) -> None:
        """Displays up to this one were added to the history from outside."""
        self._shown = self._at = iteration
        self._tested_since = False
        self._aside.clear()

    def _count(self, time: LogTime | None, line: str) -> None:
        if time is not None:
            self.log.num_other += 1
        elif line.strip():
            self.log.num_unknown += 1
            if self._on_unknown is not None:
                self._on_unknown(line)

    def _take(self, event: Event) -> None:
        match event:
            case events.Loss() | events.LearningRate() | events.TestStart() | events.Output():
                self._told(event)
            case events.SolverDump() | events.NetDump():
                self._begin_dump(event)
            case events.Clip(norm=norm) if event.thread == self.root and self._at is not None:
                self.log.clips.iteration.append(self._at)
                self.log.clips.norm.append(norm)
            case events.Resuming(path=path):
                found = _STATE.search(path)
                self._resume_at = int(found[1]) if found else None
            case events.FileHeader(year=year, month=month):
                self.clock.said_year(year, month)
            case _:
                self._note(event)

    def _note(self, event: Event) -> None:
        """What is kept as it is said."""
        log = self.log
        match event:
            case events.Devices(gpus=gpus):
                log.gpus = gpus
            case events.DeviceName(gpu=gpu, name=name) if len(log.gpu_names) < _MAX_OUTPUTS:
                log.gpu_names[gpu] = name
            case events.DataShape(batch=batch) if log.train_batch is None:
                log.train_batch = batch
            case events.TotalBatch(batch=batch):
                log.fork, log.total_batch = log.fork or "NVCaffe", batch
            case events.Fork(name=name):
                log.fork = name
            case events.Finetuning(path=path):
                log.weights = path
            case events.Snapshot(path=path, is_state=False):
                log.snapshots.append(path)
            case events.StoppedEarly():
                log.stopped = True
            case events.Done():
                log.finished = True
            case events.Warned(message=message):
                if message in log.warnings or len(log.warnings) < _MAX_WARNINGS:
                    log.warnings[message] = log.warnings.get(message, 0) + 1
            case events.Killed(signal=name):
                log.killed = name
            case events.Fatal(message=message):
                log.fatal = log.fatal or message

    def _told(self, event: _Told) -> None:
        """Something of an iteration: counts if it is the root solver's."""
        if event.thread != self.root and event.thread is not None:
            leads = isinstance(event, events.Loss | events.TestStart)
            if self._new_process and leads:
                self.root = event.thread
                self._recall(event.thread)
            else:
                self._aside.append(event)
                self._adopt()
                return
        self._aside.clear()
        self._tell(event)

    def _recall(self, thread: int) -> None:
        """The first Caffes wrote the learning rate before the loss, and so before we know whose."""
        for event in self._aside:
            if event.thread == thread and isinstance(event, events.LearningRate):
                self._pending_lr = (event.iteration, event.lr)

    def _adopt(self) -> None:
        """Another thread displayed twice and the root was silent: it is another process's."""
        last = self._aside[-1].thread
        if not isinstance(self._aside[-1], events.Loss):
            return
        mine = [event for event in self._aside if event.thread == last]
        if sum(isinstance(event, events.Loss) for event in mine) < 2:
            return
        self._aside.clear()
        self._new_process = True
        self.root = last
        for event in mine:
            self._tell(event)

    def _tell(self, event: _Told) -> None:
        log = self.log
        match event:
            case events.TestStart(iteration=iteration, net=net):
                self._begin(iteration)
                self._tested_since = True
                self._totals = {}
                time_us = self._tick(event.time)
                while log.test and log.test[-1].iteration == iteration and log.test[-1].net == net:
                    log.test.pop()
                log.test.append(
                    TestPoint(iteration, net, {}, None if time_us is None else time_us / 1e6)
                )
            case events.Loss():
                self._begin(event.iteration)
                self._add_loss(event)
            case events.LearningRate(iteration=iteration, lr=lr):
                if self._shown == iteration and log.train:
                    log.train.lr[-1] = lr
                else:  # before its loss, as the first Caffes had it
                    self._pending_lr = (iteration, lr)
            case events.Output(is_test=True, name=name, value=value):
                if log.test and (name in self._totals or len(self._totals) < _MAX_OUTPUTS):
                    total, count = self._totals.get(name, (0.0, 0))
                    self._totals[name] = (total + value, count + 1)
                    log.test[-1].outputs[name] = (total + value) / (count + 1)
            case events.Output(name=name, value=value):
                if self._shown is not None and (
                    name in log.outputs or len(log.outputs) < _MAX_OUTPUTS
                ):
                    log.outputs.setdefault(name, Series()).add(self._shown, value)

    def _begin(self, iteration: int) -> None:
        """Where a process takes over, what an earlier one did beyond that point does not count."""
        if not self._new_process and (self._at is None or iteration >= self._at):
            self._at = iteration
            return
        log = self.log
        start = iteration
        if self._new_process and self._resume_at is not None:
            start = min(start, self._resume_at)
        if log.train or log.test:
            log.cut(start)
            if log.train or log.test:
                log.restarts.append(start)
        log.pieces.append(
            Piece(start, log.train_batch, _count_of(log.fields.get("iter_size")), log.num_gpus)
        )
        self._new_process = False
        self._resume_at = self._shown = None
        self._at = iteration
        self.clock.restart()

    def _add_loss(self, event: events.Loss) -> None:
        log = self.log
        if event.epoch:
            log.epochs_at = (event.iteration, event.epoch)
        if self._shown is not None and event.iteration <= self._shown:
            return  # the last iteration is displayed once more at the end
        before_us = self.clock.now_us
        time_us = self._tick(event.time)
        step_us = 0
        if self._shown is not None and not self._tested_since and time_us is not None:
            last_us = log.train.time_us[-1]
            step_us = time_us - last_us if last_us >= 0 else 0
        del before_us
        pending = self._pending_lr
        lr = pending[1] if pending is not None and pending[0] == event.iteration else None
        log.train.append(event.iteration, event.loss, lr, time_us, step_us)
        self._shown = event.iteration
        self._tested_since = False

    def _tick(self, time: LogTime | None) -> int | None:
        time_us = self.clock.tick(time)
        self.log.started, self.log.latest = self.clock.first, self.clock.latest
        return time_us

    def _begin_dump(self, event: Event) -> None:
        self._end_dump()
        log = self.log
        self._dump, self._dump_thread = [], event.thread
        self._dump_is_net = isinstance(event, events.NetDump)
        if not self._dump_is_net:
            self._new_process = True
            self._num_displays = 0
            log.nets = []
            log.finished = log.stopped = False
            log.fatal = log.killed = ""

    def _goes_on(self, time: LogTime | None, thread: int | None, message: str) -> bool:
        """Whether a line belongs to the dump that was begun; if not, that may end here."""
        assert self._dump is not None
        if time is None and dump.is_line(message):
            if len(self._dump) < dump.MAX_LINES:
                self._dump.append(message)
            return True
        if time is None or thread == self._dump_thread:
            self._end_dump()
        return False

    def _end_dump(self) -> None:
        lines, self._dump = self._dump, None
        if lines is None:
            return
        log = self.log
        if not self._dump_is_net:
            log.fields = dump.solver_fields(lines)
            return
        info = dump.net_info(lines)
        if len(log.nets) < _MAX_OUTPUTS:
            log.nets.append(info)
        if info.batch is not None and info.phase == "TRAIN":
            log.train_batch = info.batch
        elif info.batch is not None and info.phase == "TEST":
            log.test_batch = info.batch


def _count_of(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 1


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
