"""From the lines of a log to what the run is doing now; keeps no history, however long it is."""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.log.read import events
from irv2caffe.log.read.history import TestPoint
from irv2caffe.log.read.outputs import MAX_OUTPUTS, TestOutputs
from irv2caffe.log.read.parse import parse
from irv2caffe.log.table import PINNED_LOSS, row_of_test

if TYPE_CHECKING:
    from collections.abc import Callable

_STAMP = re.compile(r"[IWEF]\d{4,8} (\d\d):(\d\d):(\d\d(?:\.\d+)?) ")
_DAY_S, _SET_BACK_S = 86_400.0, 7200.0  # the end of summer time sets clocks back by one hour
# Displays whose loss is pinned before the run counts as lost; one may be an accident of rounding.
_PINNED_DISPLAYS = 2
_LAST_LINES, _RATE_DISPLAYS = 30, 10
_INTERRUPTED = "] Test interrupted."
# Lines without glog's prefix that say more of an end than Caffe's own last words.
_TELLING = ("terminate called", "what():", "libprotobuf ERROR", "docker:", "error while loading")
# A frame of the stack that says more than the exception: of an empty database 1.0 reads a length
# from memory that nobody has written.
_FRAME = "LMDBCursor::value()"
# An error that Caffe goes on from, to a check that fails of what it left.
_CAUSE = "Could not decode datum"


@dataclass
class StartState:
    """What one process of Caffe has done so far.

    Attributes:
        phase: ``start``, ``train`` or ``test``.
        iteration: of the last line that named one, or None.
        first_iteration: the first one that was displayed, or None.
        num_displays: of the training loss.
        loss: last displayed.
        lr: last displayed.
        last_healthy: the last iteration whose loss was a number and not pinned.
        diverged: the iteration at which the loss was lost, or None.
        diverged_how: in words.
        model: the last model it said that it writes.
        state: the last solver state.
        stopped: it says that a signal ended it.
        interrupted: it says that a signal ended a test, which is all it says in the last one.
        done: it says that the training ended.
        fatal: its last words, or empty.
        last_lines: the end of the log, for what has no words of its own.
    """

    phase: str = "start"
    iteration: int | None = None
    first_iteration: int | None = None
    num_displays: int = 0
    loss: float | None = None
    lr: float | None = None
    last_healthy: int | None = None
    diverged: int | None = None
    diverged_how: str = ""
    model: str = ""
    state: str = ""
    stopped: bool = False
    interrupted: bool = False
    done: bool = False
    fatal: str = ""
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))

    @property
    def telling(self) -> str:
        """The last words: Caffe's, and those of libraries that say more."""
        words = (*_TELLING, _FRAME, _CAUSE) if self.fatal else _TELLING
        found = [line for line in self.last_lines if any(word in line for word in words)]
        return " ".join([*found, self.fatal]).strip()


Row = dict[str, Any]


class Tracker:
    """Takes the lines of one start; gives rows for displays and tests when they are complete."""

    def __init__(self, on_row: Callable[[Row], None] = lambda _: None) -> None:
        """Nothing is read yet.

        Args:
            on_row: called with every row: ``kind`` is ``train`` or ``test``.
        """
        self.now = StartState()
        self.rate = Rate()
        self._on_row = on_row
        self._row: Row | None = None
        self._test: TestPoint | None = None
        self._outputs = TestOutputs({}, set())  # of the row or the test
        self._losses: set[str] = set()  # names of outputs that have a loss weight
        self._displayed: int | None = None
        self._is_pinned = False
        self._num_pinned = 0

    def line(self, text: str) -> events.Event | None:
        """Takes one line."""
        event = parse(text)
        if event is None:
            self.now.interrupted |= text.endswith(_INTERRUPTED)
            is_telling = any(word in text for word in (*_TELLING, _FRAME))
            # Behind Caffe's last words other threads go on printing, a whole net at the start.
            if is_telling or (text and not text.startswith(" ") and not self.now.fatal):
                self.now.last_lines.append(text[:500])
            return None
        self._take(event, text)
        return event

    def finish(self) -> None:
        """The log ends."""
        self._close_row()

    def _take(self, event: events.Event, text: str) -> None:
        now = self.now
        match event:
            case events.Loss(iteration=iteration, loss=loss):
                self._close_row()
                if self._displayed == iteration:
                    return  # some versions display the last iteration twice
                self._loss(iteration, loss, seconds_of(text))
            case events.LearningRate(iteration=iteration, lr=lr):
                now.lr = lr
                if self._row is not None and self._row["iteration"] == iteration:
                    self._row["lr"] = lr
            case events.TestStart(iteration=iteration, net=net):
                self._close_row()
                now.phase, now.iteration = "test", iteration
                self.rate.pause(iteration, seconds_of(text))
                self._test = TestPoint(iteration, net, {})
                self._outputs = TestOutputs(self._test.outputs, set())
            case events.Output():
                self._output(event)
            case events.Snapshot(path=path, is_state=is_state):
                self._close_row()
                if is_state:
                    now.state = path
                else:
                    now.model = path
            case events.StoppedEarly():
                now.stopped = True
            case events.Done():
                self._close_row()
                now.done = True
            case events.Warned(message=message):
                now.last_lines.append(message)
            case events.Fatal(message=message):
                now.fatal = now.fatal or message

    def _loss(self, iteration: int, loss: float, at_s: float | None) -> None:
        now = self.now
        now.phase, now.iteration, now.loss = "train", iteration, loss
        now.num_displays += 1
        self._displayed = iteration
        if now.first_iteration is None:
            now.first_iteration = iteration
        step_s = self.rate.display(iteration, at_s)
        self._row = {"kind": "train", "iteration": iteration, "loss": loss, "lr": None}
        self._row["step_s"] = step_s
        self._is_pinned = is_pinned(loss)
        if not math.isfinite(loss):
            self._lost(iteration, f"the loss is {loss}")

    def _look_at(self, row: Row) -> None:
        """A display is complete: was it of a net that still learns?"""
        self._num_pinned = self._num_pinned + 1 if self._is_pinned else 0
        if self._num_pinned >= _PINNED_DISPLAYS:
            self._lost(row["iteration"], f"a loss stays at {PINNED_LOSS}: its outputs overflowed")
        elif not self._is_pinned and self.now.diverged is None:
            self.now.last_healthy = row["iteration"]

    def _lost(self, iteration: int, how: str) -> None:
        if self.now.diverged is None:
            self.now.diverged, self.now.diverged_how = iteration, how

    def _output(self, event: events.Output) -> None:
        now, name, value = self.now, event.name, event.value
        if event.weight is not None and len(self._losses) < MAX_OUTPUTS:
            self._losses.add(name)
        is_loss = "loss" in name.lower()
        if event.is_test and self._test is not None:
            now.phase = "train"  # the outputs come when the test is over
            self._outputs.add(name, value)
            # Accuracy counts what is not below the true class: of NaN that is everything.
            if is_loss and not math.isfinite(value):
                perfect = any(other == 1 for other in self._test.outputs.values())
                why = ", and the accuracy is exactly 1, as Caffe has it then" if perfect else ""
                self._lost(self._test.iteration, f"{name} of the test is {value}{why}")
        elif not event.is_test and self._row is not None:
            if "outputs" not in self._row:
                self._row["outputs"] = {}
                self._outputs = TestOutputs(self._row["outputs"], set())
            self._outputs.add(name, value)
            if is_loss and not math.isfinite(value):
                self._lost(now.iteration or 0, f"{name} is {value}")
            self._is_pinned |= is_loss and is_pinned(value)

    def _close_row(self) -> None:
        if self._row is not None:
            self._look_at(self._row)
            self._on_row(self._row)
            self._row = None
        if self._test is not None:
            test = self._test
            self._test = None
            if test.outputs:
                row = row_of_test(test, None, known_losses=self._losses)
                self._on_row(
                    {
                        "kind": "test",
                        "iteration": test.iteration,
                        "net": test.net,
                        "top1_error": row.top1_error,
                        "top5_error": row.top5_error,
                        "loss": row.loss,
                        "outputs": test.outputs,
                    }
                )


def is_pinned(loss: float) -> bool:
    """Whether a loss is that of outputs that overflowed: -log of the smallest float."""
    return abs(loss - PINNED_LOSS) < 1e-3


def seconds_of(line: str) -> float | None:
    """The time of day in glog's prefix."""
    match = _STAMP.match(line)
    if match is None:
        return None
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])


def between(earlier_s: float, later_s: float) -> float | None:
    """Seconds between two times of day, or None where the clock was set back between them."""
    took_s = (later_s - earlier_s) % _DAY_S
    return took_s if took_s < _DAY_S - _SET_BACK_S else None


class Rate:
    """Seconds per iteration over the last displays, tests left out.

    Caffe's own rates are not used: the first of a process is read from uninitialised memory.
    """

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._steps: deque[tuple[int, float]] = deque(maxlen=_RATE_DISPLAYS)
        self._before_tests: deque[tuple[int, float]] = deque(maxlen=_RATE_DISPLAYS)
        self._test_began: float | None = None
        self.test_s: float | None = None

    def display(self, iteration: int, at_s: float | None) -> float | None:
        """A training loss was displayed; returns seconds per iteration since the one before.

        After a test this is its end, and nothing is returned.
        """
        if at_s is None:
            return None
        step_s = None
        if self._test_began is not None:
            self.test_s = between(self._test_began, at_s) or self.test_s
            self._test_began = None
        elif self._last is not None and iteration > self._last[0]:
            took_s = between(self._last[1], at_s)
            count = iteration - self._last[0]
            if took_s is not None:
                self._steps.append((count, took_s))
                step_s = took_s / count
        self._last = (iteration, at_s)
        return step_s

    def pause(self, iteration: int, at_s: float | None) -> None:
        """A test begins: the iterations before it end here."""
        if at_s is not None and self._last is not None and self._test_began is None:
            # A display comes behind its iteration's loss, a test before.
            count = iteration - self._last[0] - 1
            took_s = between(self._last[1], at_s)
            if count > 0 and took_s is not None:
                self._before_tests.append((count, took_s))
        self._test_began = at_s

    @property
    def step_s(self) -> float | None:
        """Seconds per iteration, or None before two displays.

        Where a test lies between all of them, those between a display and a test count.
        """
        steps = self._steps or self._before_tests
        iterations = sum(count for count, _ in steps)
        return sum(took for _, took in steps) / iterations if iterations else None
