"""BlockReader: reads blocks of lines with numpy, 100 MB in about a second.

Long logs are mostly displays of the loss: a loss line, lines of outputs, a line of the learning
rate, all with glog's prefix. They are read column by column. Any line that deviates from the usual
form is passed to :meth:`LineReader.feed_line`, in the order of the log, so that the result is the
same as line by line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from irv2caffe.log.read.clock import DAY_US, DAYS_BEFORE, HALF_YEAR_US
from irv2caffe.log.read.columns import Series
from irv2caffe.log.read.events import LogTime, Output
from irv2caffe.log.read.fast.lines import LOSS, LR, OTHER, OUTPUT, Lines
from irv2caffe.log.read.fast.scan import Scratch
from irv2caffe.log.read.outputs import MAX_NAME, MAX_OUTPUTS
from irv2caffe.log.read.parse import parse

if TYPE_CHECKING:
    from irv2caffe.log.read.line_reader import LineReader

MIN_RUN = 48  # shorter runs of usual lines are read line by line
_Array = Any  # of numpy


class BlockReader:
    """Feeds a :class:`LineReader` whole blocks of lines."""

    def __init__(self, reader: LineReader) -> None:
        self._reader = reader
        self._scratch = Scratch()

    def feed(self, *parts: bytes | memoryview) -> None:
        """Takes whole lines.

        Args:
            parts: of the file, in order; the last one ends with a line end.
        """
        lines = Lines(self._scratch, *parts)
        index = 0
        while index < lines.count:
            if not self._reader.expects_displays:
                index = self._feed_start(lines, index)
                continue
            # Runs of lines in the usual form lie between lines that are not.
            slow = lines.next_slow(index)
            if slow - index < MIN_RUN:
                index = self._feed_each(lines, index, slow + 1)
            else:
                index = self._feed_run(lines, index, slow)

    def _feed_start(self, lines: Lines, index: int) -> int:
        """Takes the next lines of the start of a process: net prototxts and lines about layers."""
        reader = self._reader
        if reader.dump is None:
            end = lines.next_known(index)
            if end > index:
                reader.log.num_lines += end - index
                reader.log.num_other += end - index
                return end
        elif not reader.dump.has_lead:
            taken = reader.feed_dump(lines.unprefixed(index))
            if taken:
                return index + taken
        return self._feed_each(lines, index, index + 1)

    def _feed_each(self, lines: Lines, first: int, end: int) -> int:
        """Takes lines one by one; returns the index of the next."""
        end = min(end, lines.count)
        for index in range(first, end):
            self._reader.feed_line(lines.text(index))
        return end

    def _feed_run(self, lines: Lines, first: int, end: int) -> int:
        """Takes lines without any SLOW one; returns the index of the next."""
        reader = self._reader
        kind = lines.kind[first:end]
        root = -1 if reader.root is None else reader.root
        foreign = (lines.thread[first:end] != root) & (kind != OTHER)
        if foreign.any():  # another thread's iterations: LineReader chooses between the threads
            stop = first + int(np.argmax(foreign))
            if stop - first < MIN_RUN:
                return self._feed_each(lines, first, stop + MIN_RUN)
            return self._feed_run(lines, first, stop)
        known = np.flatnonzero(kind != OTHER) + first
        if len(known) and not _add(reader, _Displays(lines, known)):
            return self._feed_each(lines, first, end)
        reader.log.num_lines += end - first
        reader.log.num_events += len(known)
        reader.log.num_other += end - first - len(known)
        return end


class _Displays:
    """Lines of displays as columns.

    Attributes:
        losses: lines of a loss.
        rates: lines of a learning rate.
        outputs: lines of an output.
        iteration: of each loss.
        rate_of: the display that each learning rate belongs to, counted from 1; 0 is the last
            display before this block.
        output_of: the display that each output belongs to.
    """

    def __init__(self, lines: Lines, places: _Array) -> None:
        self.lines = lines
        kind = lines.kind[places]
        self.losses, self.rates, self.outputs = (
            places[kind == each] for each in (LOSS, LR, OUTPUT)
        )
        self.iteration = lines.iteration[self.losses]
        display = np.cumsum(kind == LOSS)
        self.rate_of = display[kind == LR]
        self.output_of = display[kind == OUTPUT]


def _add(reader: LineReader, displays: _Displays) -> bool:
    """Adds displays to the history; adds none and returns False if they are not in order."""
    builder, lines = reader.builder, displays.lines
    if builder.shown is None or not len(displays.losses):
        return False
    if displays.iteration[0] < (builder.iteration or 0):
        return False
    iteration = np.concatenate(([builder.shown], displays.iteration))
    if (np.diff(iteration) <= 0).any():
        return False
    if (lines.iteration[displays.rates] != iteration[displays.rate_of]).any():
        return False
    outputs = _outputs(reader, displays, iteration)
    times = None if outputs is None else _times(reader, displays)
    if outputs is None or times is None:
        return False
    lr = np.full(len(iteration), np.nan)
    lr[displays.rate_of] = lines.value[displays.rates]
    train = reader.log.train
    if len(displays.rate_of) and displays.rate_of[0] == 0:
        train.lr[-1] = float(lr[0])
    train.extend(
        iteration=displays.iteration,
        loss=lines.value[displays.losses],
        lr=lr[1:],
        time_us=times[0],
        step_us=times[1],
    )
    for output in outputs:
        if output.weight is not None:
            reader.log.add_loss_weight(output.name, output.weight)
        series = reader.log.outputs.setdefault(output.name, Series())
        series.extend(output.iteration, output.value)
    last = int(displays.iteration[-1])
    reader.skip_to(last, [output.name for output in outputs if output.iteration[-1] == last])
    return True


def _times(reader: LineReader, displays: _Displays) -> tuple[_Array, _Array] | None:
    """Working times of displays and the steps between them; moves the clock."""
    clock = reader.builder.clock
    if clock.position_us is None:
        return None
    year, month, day, of_day = displays.lines.stamps(displays.losses)
    own_year = -1 if clock.year is None else clock.year
    if ((year >= 0) & (year != own_year)).any():
        return None
    if not ((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all():
        return None
    if ((month == 2) & (day == 29)).any() and not clock.is_leap:
        return None
    days = np.array(DAYS_BEFORE)[month] + day - 1 + ((month > 2) & clock.is_leap)
    position_us = days * DAY_US + of_day
    steps = np.diff(np.concatenate(([clock.position_us], position_us)))
    if (steps < -HALF_YEAR_US).any():
        return None
    last_us = reader.log.train.time_us[-1]
    time_us = clock.now_us + np.cumsum(np.maximum(steps, 0))
    step_us = np.diff(np.concatenate(([last_us], time_us)))
    if reader.builder.tested_since or last_us < 0:
        step_us[0] = 0
    last = LogTime(
        None if year[-1] < 0 else int(year[-1]), int(month[-1]), int(day[-1]), int(of_day[-1])
    )
    clock.move_to(int(position_us[-1]), int(time_us[-1]), last)
    reader.log.latest = clock.latest
    return time_us, step_us


class _OutputValues(NamedTuple):
    """Values of one output; ``weight`` is its loss weight if not yet in the history."""

    name: str
    iteration: _Array
    value: _Array
    weight: float | None


def _outputs(
    reader: LineReader, displays: _Displays, iteration: _Array
) -> list[_OutputValues] | None:
    """The values of each output; None if an output has several elements."""
    if not len(displays.outputs):
        return []
    log, lines = reader.log, displays.lines
    names, which = lines.names(displays.outputs)
    if len(names) + len(log.outputs) > MAX_OUTPUTS:
        return None
    at = iteration[displays.output_of]
    value = lines.value[displays.outputs]
    found: dict[str, _OutputValues] = {}
    for number, key in enumerate(names):
        name = key.decode("utf-8", "replace")[:MAX_NAME]
        own = which == number if len(names) > 1 else slice(None)
        if name in found or (np.diff(at[own]) <= 0).any():
            return None
        known = log.outputs.get(name)
        if known is not None and len(known) and known.iteration[-1] >= at[own][0]:
            return None
        if not reader.builder.outputs.is_single(name):
            return None
        weight = None if name in log.loss_weights else _weight(lines, displays.outputs[own])
        found[name] = _OutputValues(name, at[own], value[own], weight)
    return list(found.values())


def _weight(lines: Lines, places: _Array) -> float | None:
    """The first loss weight in lines of outputs."""
    weighted = places[lines.is_weighted[places]]
    if not len(weighted):
        return None
    event = parse(lines.text(int(weighted[0])).decode("utf-8", "replace"))
    return event.weight if isinstance(event, Output) else None
