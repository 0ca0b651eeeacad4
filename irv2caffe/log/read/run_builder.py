"""RunBuilder: adds displays, tests and restarts to the history of a run, event by event."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from irv2caffe.log.read import events
from irv2caffe.log.read.history import Log, Process, TestPoint
from irv2caffe.log.read.outputs import TestOutputs, TrainOutputs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from irv2caffe.log.read.clock import Clock
    from irv2caffe.log.read.events import LogTime

IterationEvent = events.Loss | events.LearningRate | events.TestStart | events.Output | events.Score


class RunBuilder:
    """Adds the events of the root solver, over all processes, to the history of a run.

    Attributes:
        log: the history.
        clock: adds up its working time.
        new_process: a process has started and not yet printed an iteration.
        resume_at: the iteration in the name of the solver state it resumes from, or None.
        iteration: the newest iteration of this process, or None.
        shown: the last displayed iteration of this process, or None.
        tested_since: whether a test came after that.
        outputs: of the training net.
    """

    def __init__(self, log: Log, clock: Clock) -> None:
        self.log = log
        self.clock = clock
        self.new_process = True
        self.resume_at: int | None = None
        self.iteration: int | None = None
        self.shown: int | None = None
        self.tested_since = False
        self.outputs = TrainOutputs(log.outputs)
        self._pending_lr: tuple[int, float] | None = None
        self._test_outputs: TestOutputs | None = None
        self._test_names: set[str] = set()

    def handle(self, event: IterationEvent) -> None:
        """Adds one event of the root solver."""
        match event:
            case events.TestStart():
                self._start_test(event)
            case events.Loss():
                self._enter_iteration(event.iteration)
                self._add_loss(event)
            case events.LearningRate(iteration=iteration, lr=lr):
                if self.shown == iteration and not self.new_process and self.log.train:
                    self.log.train.lr[-1] = lr
                else:  # before its loss, as in the first Caffe versions
                    self._pending_lr = (iteration, lr)
            case events.Score():
                self._add_score(event)
            case events.Output(name=name, value=value):
                if event.weight is not None:
                    self.log.add_loss_weight(name, event.weight)
                if event.is_test and self._test_outputs is not None:
                    self.log.num_dropped += not self._test_outputs.add(name, value)
                elif not event.is_test and self.shown is not None:
                    self.log.num_dropped += not self.outputs.add(name, self.shown, value)

    def skip_to(self, iteration: int, outputs: Iterable[str] = ()) -> None:
        """Continues after displays that the fast path added.

        Args:
            iteration: of the last of them.
            outputs: the names of its outputs.
        """
        self.shown = self.iteration = iteration
        self.tested_since = False
        self.outputs.start_display(outputs)

    def _enter_iteration(self, iteration: int) -> None:
        """Drops the displays and tests of an earlier process from the start of a new one on."""
        if not self.new_process and (self.iteration is None or iteration >= self.iteration):
            self.iteration = iteration
            return
        log, start = self.log, iteration
        if self.new_process and self.resume_at is not None:
            start = min(start, self.resume_at)
        if log.train or log.test:
            # The first Caffe versions displayed an iteration after it, and do not repeat that of a
            # snapshot; later ones do, and their display replaces it (:meth:`_add_loss`).
            log.cut(start, keep_display=start == self.resume_at and self.new_process)
            if log.train or log.test:
                log.restarts.append(start)
        iter_size = log.fields.get("iter_size")
        iter_size = iter_size if isinstance(iter_size, int) and iter_size > 0 else 1
        log.processes.append(Process(start, log.train_batch, iter_size, log.num_gpus))
        self.new_process = False
        self.resume_at = self.shown = self._test_outputs = None
        self.iteration = iteration
        self.clock.restart()

    def _add_loss(self, event: events.Loss) -> None:
        train = self.log.train
        if event.epoch is not None and 0 < event.epoch < math.inf:
            self.log.epochs_at = (event.iteration, event.epoch)
        if self.shown is not None and event.iteration <= self.shown:
            return  # the last iteration is displayed once more at the end
        if self.shown is None:
            self.log.cut_displays(event.iteration)
        time_us = self._tick(event.time)
        step_us = 0
        if self.shown is not None and not self.tested_since and time_us is not None:
            last_us = train.time_us[-1]
            step_us = time_us - last_us if last_us >= 0 else 0
        pending = self._pending_lr
        lr = pending[1] if pending is not None and pending[0] == event.iteration else None
        train.append(event.iteration, event.loss, lr, time_us, step_us)
        self.shown = event.iteration
        self.tested_since = False
        self.outputs.start_display()

    def _start_test(self, event: events.TestStart) -> None:
        self._enter_iteration(event.iteration)
        self.tested_since = True
        time_us = self._tick(event.time)
        tests = self.log.test
        while tests and (tests[-1].iteration, tests[-1].net) == (event.iteration, event.net):
            tests.pop()
        seconds = None if time_us is None else time_us / 1e6
        tests.append(TestPoint(event.iteration, event.net, {}, seconds))
        self._test_outputs = TestOutputs(tests[-1].outputs, self._test_names)

    def _add_score(self, event: events.Score) -> None:
        """Adds a score to the test at its iteration; no line starts such a test."""
        tests = self.log.test
        known = bool(tests) and (tests[-1].iteration, tests[-1].net) == (event.iteration, 0)
        if not known or self._test_outputs is None:
            self._start_test(events.TestStart(event.time, event.thread, event.iteration, 0))
        if self._test_outputs is not None:
            self.log.num_dropped += not self._test_outputs.add(event.name, event.value)

    def _tick(self, time: LogTime | None) -> int | None:
        time_us = self.clock.tick(time)
        self.log.started, self.log.latest = self.clock.first, self.clock.latest
        return time_us
