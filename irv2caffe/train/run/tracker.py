"""Tracks the state of a training from Caffe's log, line by line.

``irv2caffe.log`` interprets the lines; only the newest display and test are kept in memory.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.log.accuracy import kind_of
from irv2caffe.log.read import events
from irv2caffe.log.read.line_reader import LineReader
from irv2caffe.log.table import PINNED_LOSS, is_nonfinite, is_pinned, row_of_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.log.read.columns import TrainPoint
    from irv2caffe.log.read.history import TestPoint

# Consecutive displays of a pinned loss that count as divergence.
_PINNED_DISPLAYS = 2
_LAST_LINES, _MAX_LINE_CHARS = 30, 500
_RATE_DISPLAYS = 10
# Lines without glog's prefix that explain a failure better than Caffe's own last message.
_CAUSES = ("terminate called", "what():", "libprotobuf ERROR", "docker:", "error while loading")
# A stack frame that explains more than the exception: Caffe 1.0 reads a record of an empty database
# from uninitialised memory.
_FRAME = "LMDBCursor::value()"
# An error that Caffe survives, until a check fails because of it.
_SURVIVED = "Could not decode datum"

Row = dict[str, Any]


@dataclass
class StartState:
    """What one process of Caffe has done so far.

    Attributes:
        phase: ``start``, ``train`` or ``test``.
        iteration: iteration of the newest display or test, or None.
        first_iteration: the first displayed iteration, or None.
        loss: the last displayed loss.
        lr: the last displayed learning rate.
        last_healthy: the last iteration whose loss was finite and not pinned, or None.
        diverged: the iteration at which the training diverged, or None.
        diverged_how: the reason, as a phrase.
        stopped: a signal ended the training, and its snapshot is written.
        interrupted: a signal ended a test; in the test after the last iteration Caffe logs no more.
        done: Caffe logged that the optimization is done.
        fatal: Caffe's fatal message, or empty.
        last_lines: the end of the log, for failures without a fatal message.
    """

    phase: str = "start"
    iteration: int | None = None
    first_iteration: int | None = None
    loss: float | None = None
    lr: float | None = None
    last_healthy: int | None = None
    diverged: int | None = None
    diverged_how: str = ""
    stopped: bool = False
    interrupted: bool = False
    done: bool = False
    fatal: str = ""
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))

    @property
    def failure_text(self) -> str:
        """Caffe's fatal message, after the lines that explain it; empty without any."""
        causes = (*_CAUSES, _FRAME, _SURVIVED) if self.fatal else _CAUSES
        found = [line for line in self.last_lines if any(cause in line for cause in causes)]
        return " ".join([*found, self.fatal]).strip()


class Tracker:
    """Follows the log of one start; reports each complete display and test.

    Attributes:
        now: the state of the training.
        rate: its speed.
    """

    def __init__(self, on_row: Callable[[Row], None] = lambda _: None) -> None:
        """Starts before the first line.

        Args:
            on_row: called with every row, whose ``kind`` is ``train`` or ``test``.
        """
        self.now = StartState()
        self.rate = Rate()
        self._on_row = on_row
        self._reader = LineReader()
        self._row: Row | None = None  # the newest display, while its outputs follow
        self._displayed: int | None = None
        self._test: TestPoint | None = None
        self._is_test_open = False
        self._num_outputs: dict[int, int] = {}  # of each test net, known after its first test
        self._is_pinned = False
        self._num_pinned = 0

    def line(self, text: str) -> events.Event | None:
        """Takes one line; returns its event."""
        event = self._reader.feed(text)
        if event is None:
            is_cause = any(word in text for word in (*_CAUSES, _FRAME))
            # After the fatal message other threads go on printing, a whole net at the start.
            if is_cause or (text and not text.startswith(" ") and not self.now.fatal):
                self.now.last_lines.append(text[:_MAX_LINE_CHARS])
            return None
        now, log = self.now, self._reader.log
        match event:
            case events.Loss():
                self._take_display()
            case events.LearningRate(lr=lr):
                now.lr = lr
            case events.TestStart() | events.Score():
                self._take_test()
            case events.Output():
                self._take_output(event)
            case events.Warned(message=message):
                now.last_lines.append(message)
            case events.Snapshot() | events.Done():
                self.finish()
        now.stopped, now.interrupted = log.stopped, log.interrupted
        now.done, now.fatal = log.finished, log.fatal
        return event

    def finish(self) -> None:
        """Reports a pending display or test as complete."""
        if self._row is not None:
            self._finish_display(self._row)
            self._row = None
        self.finish_test()

    def finish_test(self) -> None:
        """Reports a pending test, once it has outputs: a snapshot may be written within it."""
        test = self._test if self._is_test_open else None
        if test is not None and test.outputs:
            self._is_test_open = False
            self._num_outputs[test.net] = len(test.outputs)
            self._on_row(_row_of(test, self._reader.log.loss_weights))

    def _take_display(self) -> None:
        now, log = self.now, self._reader.log
        if not log.train or log.train.iteration[-1] == self._displayed:
            return  # of another thread, or displayed twice
        self.finish()
        self._is_test_open = False
        point = log.train[-1]
        now.phase, now.iteration, now.loss = "train", point.iteration, point.loss
        if now.first_iteration is None:
            now.first_iteration = point.iteration
        self.rate.add_display(point, point.iteration - (self._displayed or 0))
        self._displayed = point.iteration
        self._row = {"kind": "train", "iteration": point.iteration, "loss": point.loss}
        self._row |= {"lr": None, "step_s": point.iteration_s}
        self._is_pinned = is_pinned(point.loss)
        if is_nonfinite(point.loss):
            self._set_diverged(point.iteration, f"the loss is {point.loss}")
        log.forget_before(point.iteration)

    def _finish_display(self, row: Row) -> None:
        log, iteration = self._reader.log, row["iteration"]
        row["lr"] = next((point.lr for point in log.train if point.iteration == iteration), None)
        values = ((name, series.get(iteration)) for name, series in log.outputs.items())
        outputs = {name: value for name, value in values if value is not None}
        if outputs:
            row["outputs"] = outputs
        self._num_pinned = self._num_pinned + 1 if self._is_pinned else 0
        if self._num_pinned >= _PINNED_DISPLAYS:
            how = f"a loss stays at {PINNED_LOSS}: the outputs of the net overflowed"
            self._set_diverged(iteration, how)
        elif not self._is_pinned and self.now.diverged is None:
            self.now.last_healthy = iteration
        self._on_row(row)

    def _take_test(self) -> None:
        tests = self._reader.log.test
        if not tests or tests[-1] is self._test:
            return
        self.finish()
        self._test, self._is_test_open = tests[-1], True
        self.now.phase, self.now.iteration = "test", self._test.iteration
        self.rate.add_test(self._test)

    def _take_output(self, event: events.Output) -> None:
        name, value = event.name, event.value
        weight = self._reader.log.loss_weights.get(name, event.weight)
        is_loss = kind_of(name, weight) == "loss"
        if event.is_test and self._test is not None:
            self.now.phase = "train"  # outputs are printed at the end of a test
            # Accuracy counts the classes not ranked below the true one: all of them, with NaN.
            if is_loss and is_nonfinite(value):
                perfect = any(other == 1 for other in self._test.outputs.values())
                why = ", and the accuracy is exactly 1, as Caffe computes it then"
                how = f"{name} of the test is {value}{why if perfect else ''}"
                self._set_diverged(self._test.iteration, how)
            if len(self._test.outputs) == self._num_outputs.get(self._test.net):
                self.finish_test()
        elif is_loss and not event.is_test and self._row is not None:
            self._is_pinned |= is_pinned(value)
            if is_nonfinite(value):
                self._set_diverged(self._row["iteration"], f"{name} is {value}")

    def _set_diverged(self, iteration: int, how: str) -> None:
        if self.now.diverged is None:
            self.now.diverged, self.now.diverged_how = iteration, how


def _row_of(test: TestPoint, loss_weights: dict[str, float]) -> Row:
    row = row_of_test(test, None, known_losses=loss_weights)
    return {
        "kind": "test",
        "iteration": test.iteration,
        "net": test.net,
        "top1_error": row.top1_error,
        "top5_error": row.top5_error,
        "loss": row.loss,
        "outputs": test.outputs,
    }


class Rate:
    """Seconds per iteration over the last displays, without the tests between them.

    Attributes:
        test_s: seconds of the last test, or None.
    """

    def __init__(self) -> None:
        self._steps: deque[tuple[int, float]] = deque(maxlen=_RATE_DISPLAYS)
        self._before_tests: deque[tuple[int, float]] = deque(maxlen=_RATE_DISPLAYS)
        self._display: TrainPoint | None = None
        self._test: TestPoint | None = None  # since the last display
        self.test_s: float | None = None

    def add_display(self, point: TrainPoint, num_iterations: int) -> None:
        """Adds a display of the loss, which also ends a test.

        Args:
            point: the display.
            num_iterations: iterations since the previous display.
        """
        if self._test is not None:
            self.test_s = _between(self._test.seconds, point.seconds) or self.test_s
        elif point.iteration_s is not None:
            self._steps.append((num_iterations, point.iteration_s * num_iterations))
        self._display, self._test = point, None

    def add_test(self, test: TestPoint) -> None:
        """Adds the start of a test."""
        last = self._display
        if last is not None and self._test is None:
            # An iteration is displayed after its loss was computed, and tested before.
            count = test.iteration - last.iteration - 1
            took_s = _between(last.seconds, test.seconds)
            if count > 0 and took_s is not None:
                self._before_tests.append((count, took_s))
        self._test = test

    @property
    def step_s(self) -> float | None:
        """Seconds per iteration, or None before two displays.

        If a test follows every display, the time from a display to the test is used.
        """
        steps = self._steps or self._before_tests
        iterations = sum(count for count, _ in steps)
        return sum(took_s for _, took_s in steps) / iterations if iterations else None


def _between(earlier_s: float | None, later_s: float | None) -> float | None:
    """Seconds between two times in a log; None if unknown or if the clock was set back."""
    return later_s - earlier_s or None if earlier_s is not None and later_s is not None else None
