"""From a log file to the history of a run: rows, restarts, and what the run was made of."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass, field
from datetime import date
from typing import IO, TYPE_CHECKING

from irv2caffe.errors import FormatError, InputError, MissingInputError
from irv2caffe.log import events
from irv2caffe.log.parse import parse, split_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from irv2caffe.log.events import Event, LogTime

_DAY_S = 86_400.0
_INTEGER_FIELDS = ("max_iter", "iter_size", "test_interval", "display", "stepsize")


@dataclass(slots=True)
class TrainPoint:
    """One display of the training loss.

    Attributes:
        iteration: number of updates before it.
        loss: mean over ``average_loss`` iterations.
        lr: learning rate, or None where the line is missing.
        seconds: working time since the start; pauses between restarts are not counted.
        iteration_s: seconds per iteration since the display before, None where a test or a
            restart lies between.
    """

    iteration: int
    loss: float
    lr: float | None
    seconds: float | None
    iteration_s: float | None


@dataclass(slots=True)
class TestPoint:
    """One pass over a validation set.

    Attributes:
        iteration: number of updates before it.
        net: which of the test nets.
        outputs: name to mean value, in the order of the log.
    """

    iteration: int
    net: int
    outputs: dict[str, float]


@dataclass
class Log:
    """The history of a run; where restarts overlap, the later one counts.

    Attributes:
        train: displays of the loss, by iteration.
        test: tests, by iteration.
        restarts: iterations at which a further process took over.
        fields: numbers of the last solver that was printed, by name.
        train_batch: batch size of the TRAIN data layer, or None.
        test_batch: of the TEST data layer, or None.
        num_gpus: that trained together.
        snapshots: models written.
        finished: the log says that the training ended.
        stopped: a signal ended it.
        fatal: Caffe's last words, or empty.
        num_lines: lines read.
        num_events: lines understood.
    """

    train: list[TrainPoint] = field(default_factory=list)
    test: list[TestPoint] = field(default_factory=list)
    restarts: list[int] = field(default_factory=list)
    fields: dict[str, int] = field(default_factory=dict)
    train_batch: int | None = None
    test_batch: int | None = None
    num_gpus: int = 1
    snapshots: list[str] = field(default_factory=list)
    finished: bool = False
    stopped: bool = False
    fatal: str = ""
    num_lines: int = 0
    num_events: int = 0


class Reader:
    """Takes lines one after the other, from one file or several, and keeps the history."""

    def __init__(self) -> None:
        self.log = Log()
        self._dump: list[str] | None = None
        self._dump_is_net = False
        self._new_process = False
        self._clock = _Clock()
        self._last: TrainPoint | None = None
        self._tested_since = False

    def feed(self, line: str) -> Event | None:
        """Takes one line; returns its event."""
        self.log.num_lines += 1
        event = parse(line)
        if self._dump is not None and event is None and split_prefix(line)[0] is None:
            self._dump.append(line)
            self.log.num_events += 1
            return None
        self._end_dump()
        if event is None:
            return None
        self.log.num_events += 1
        self._take(event)
        return event

    def _take(self, event: Event) -> None:
        log = self.log
        match event:
            case events.SolverDump():
                self._new_process = True
                log.finished = log.stopped = False
                log.fatal = ""
                self._dump, self._dump_is_net = [], False
            case events.NetDump():
                self._dump, self._dump_is_net = [], True
            case events.Devices(num_gpus=count):
                log.num_gpus = count
            case events.TestStart(iteration=iteration, net=net):
                self._begin(iteration, event.time)
                self._tested_since = True
                log.test.append(TestPoint(iteration, net, {}))
            case events.Loss():
                self._begin(event.iteration, event.time)
                self._add_loss(event)
            case events.LearningRate(iteration=iteration, lr=lr):
                if self._last is not None and self._last.iteration == iteration:
                    self._last.lr = lr
            case events.Output(is_test=True, name=name, value=value):
                if log.test:
                    log.test[-1].outputs.setdefault(name, value)
            case events.Snapshot(path=path, is_state=False):
                log.snapshots.append(path)
            case events.StoppedEarly():
                log.stopped = True
            case events.Done():
                log.finished = True
            case events.Fatal(message=message):
                log.fatal = log.fatal or message

    def _begin(self, iteration: int, time: LogTime | None) -> None:
        """Where a process takes over, what an earlier one did beyond that point does not count."""
        back = self._last is not None and iteration < self._last.iteration
        if not (self._new_process or back):
            return
        self._new_process = False
        log = self.log
        if log.train or log.test:
            log.train = [point for point in log.train if point.iteration < iteration]
            log.test = [point for point in log.test if point.iteration < iteration]
            log.restarts = [at for at in log.restarts if at < iteration]
            if log.train or log.test:
                log.restarts.append(iteration)
        self._last = None
        self._clock.restart(time)

    def _add_loss(self, event: events.Loss) -> None:
        seconds = self._clock.seconds(event.time)
        rate = None
        last = self._last
        if last is not None and event.iteration <= last.iteration:
            return  # the last iteration is displayed once more at the end
        if last is not None and not self._tested_since:
            step_s = (seconds or 0.0) - (last.seconds or 0.0)
            rate = step_s / (event.iteration - last.iteration) if step_s > 0 else None
        self._last = TrainPoint(event.iteration, event.loss, None, seconds, rate)
        self._tested_since = False
        self.log.train.append(self._last)

    def _end_dump(self) -> None:
        if self._dump is None:
            return
        text = "".join(f"{line}\n" for line in self._dump)
        self._dump = None
        if self._dump_is_net:
            self._read_net(text)
            return
        for name in _INTEGER_FIELDS:
            found = re.search(rf"^{name}: (\d+)", text, re.MULTILINE)
            if found:
                self.log.fields[name] = int(found[1])

    def _read_net(self, text: str) -> None:
        batch = re.search(r"^\s*batch_size: (\d+)", text, re.MULTILINE)
        phase = re.search(r"^state \{[^}]*phase: (TRAIN|TEST)", text, re.MULTILINE)
        if batch and phase and phase[1] == "TRAIN":
            self.log.train_batch = int(batch[1])
        elif batch and phase:
            self.log.test_batch = int(batch[1])


class _Clock:
    """Working time from glog's stamps, which have no year: a step back is the turn of a year."""

    def __init__(self) -> None:
        self._before_s = 0.0
        self._start: float | None = None
        self._now_s = 0.0
        self._year = 2000  # a leap year, so that every date exists

    def restart(self, time: LogTime | None) -> None:
        self._before_s += self._now_s
        self._now_s = 0.0
        self._start = None
        self.seconds(time)

    def seconds(self, time: LogTime | None) -> float | None:
        if time is None:
            return None
        try:
            absolute = date(time.year or self._year, time.month, time.day).toordinal() * _DAY_S
        except ValueError:
            return None
        absolute += time.seconds
        if self._start is None:
            self._start = absolute
        elif time.year is None and absolute - self._start < -180 * _DAY_S:
            self._year += 1
            return self.seconds(time)
        self._now_s = max(self._now_s, absolute - self._start)
        return self._before_s + self._now_s


def resolve_log(path: Path) -> Path:
    """The log that a path means: itself, or ``train.log`` in a run folder.

    Raises:
        MissingInputError: nothing there.
    """
    if path.is_dir():
        inside = path / "train.log"
        if not inside.is_file():
            raise MissingInputError(f"{path} holds no train.log", "give a log or a run folder")
        return inside
    if not path.exists():
        raise MissingInputError(f"{path}: no such log", "give a log or a run folder")
    return path


def read_log(path: Path) -> Log:
    """The history in a log file, plain or gzipped, of any length.

    Args:
        path: a log or a run folder.

    Raises:
        MissingInputError: nothing there.
        FormatError: no line of it is Caffe's.
        InputError: it cannot be read.
    """
    path = resolve_log(path)
    reader = Reader()
    try:
        with _open(path) as stream:
            for line in stream:
                reader.feed(line.decode("utf-8", "replace").rstrip("\r\n"))
    except (gzip.BadGzipFile, EOFError) as error:
        if reader.log.num_events == 0:
            raise FormatError(f"not a readable gzip file: {error}", path=path) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if reader.log.num_events == 0:
        raise FormatError(
            "no line of it is from a Caffe training",
            "give the log of caffe train, or a run folder",
            path=path,
        )
    return reader.log


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def read_lines(lines: Iterable[str]) -> Log:
    """The history in lines."""
    reader = Reader()
    for line in lines:
        reader.feed(line)
    return reader.log
