"""The same as reading line by line, for many lines at once: 100 MB in about a second.

Long logs are displays of the loss: a loss line, lines of outputs, a line of the learning rate, all
with glog's prefix. Those are read here with numpy, column by column; any other line, and any that
is not exactly of the usual form, goes to :meth:`Reader.feed`, in its order. A test feeds the same
bytes both ways and compares.
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
    from irv2caffe.log.read.reader import Reader

MIN_RUN = 48  # a shorter stretch is read line by line
_Array = Any  # of numpy


def feed_many(reader: Reader, *parts: bytes | memoryview) -> None:
    """Takes whole lines.

    Args:
        reader: keeps the history.
        parts: of the file, in order; the last one ends with a line end.
    """
    if reader.scratch is None:
        reader.scratch = Scratch()
    lines = Lines(reader.scratch, *parts)
    place = 0
    while place < lines.count:
        if not reader.is_steady:
            place = _start(reader, lines, place)
            continue
        # Stretches of lines that this module understands lie between those that it does not.
        slow = lines.next_slow(place)
        if slow - place < MIN_RUN:
            place = _slowly(reader, lines, place, slow + 1)
            continue
        place = _run(reader, lines, place, slow)


def _start(reader: Reader, lines: Lines, place: int) -> int:
    """Lines of a start, of which most are a net's text and what Caffe says of each layer."""
    if reader.in_dump:
        taken = reader.feed_dump(lines, place)
        if taken:
            return place + taken
    else:
        end = lines.next_told(place)
        if end > place:
            reader.log.num_lines += end - place
            reader.log.num_other += end - place
            return end
    return _slowly(reader, lines, place, place + 1)


def _slowly(reader: Reader, lines: Lines, first: int, end: int) -> int:
    """Line by line; returns where it ended."""
    end = min(end, lines.count)
    for place in range(first, end):
        reader.feed_line(lines.text(place))
    return end


def _run(reader: Reader, lines: Lines, first: int, end: int) -> int:
    """Takes lines ``first`` to ``end``, none of them SLOW; returns where it ended."""
    kind = lines.kind[first:end]
    foreign = (lines.thread[first:end] != (-1 if reader.root is None else reader.root)) & (
        kind != OTHER
    )
    if foreign.any():  # another thread speaks of iterations: who counts is decided line by line
        stop = first + int(np.argmax(foreign))
        if stop - first < MIN_RUN:
            return _slowly(reader, lines, first, stop + MIN_RUN)
        return _run(reader, lines, first, stop)
    told = np.flatnonzero(kind != OTHER) + first
    block = _Block(lines, told)
    if len(told) and not _add(reader, block):
        return _slowly(reader, lines, first, end)
    reader.log.num_lines += end - first
    reader.log.num_events += len(told)
    reader.log.num_other += end - first - len(told)
    return end


class _Block:
    """Lines of displays, taken apart into columns."""

    def __init__(self, lines: Lines, places: _Array) -> None:
        self.lines = lines
        self.kind = lines.kind[places]
        self.is_loss = self.kind == LOSS
        self.losses = places[self.is_loss]
        self.rates = places[self.kind == LR]
        self.outputs = places[self.kind == OUTPUT]
        self.iteration = lines.iteration[self.losses]
        # For each line the display that it belongs to, counted from 1; 0 is the one before.
        display = np.cumsum(self.is_loss)
        self.rate_of = display[self.kind == LR]
        self.output_of = display[self.kind == OUTPUT]


def _add(reader: Reader, block: _Block) -> bool:
    """Adds the displays to the history; False, and nothing added, if they are not in order."""
    shown = reader.builder.shown
    if shown is None or not len(block.losses) or block.iteration[0] < (reader.builder.at or 0):
        return False
    iteration = np.concatenate(([shown], block.iteration))
    if (np.diff(iteration) <= 0).any():
        return False
    if (block.lines.iteration[block.rates] != iteration[block.rate_of]).any():
        return False
    outputs = _outputs(reader, block, iteration)
    times = None if outputs is None else _times(reader, block)
    if outputs is None or times is None:
        return False
    loss = block.lines.value[block.losses]
    lr = np.full(len(iteration), np.nan)
    lr[block.rate_of] = block.lines.value[block.rates]
    time_us, step_us = times
    train = reader.log.train
    if len(block.rate_of) and block.rate_of[0] == 0:
        train.lr[-1] = float(lr[0])
    train.extend(iteration=block.iteration, loss=loss, lr=lr[1:], time_us=time_us, step_us=step_us)
    for one in outputs:
        if one.weight is not None:
            reader.log.note_weight(one.name, one.weight)
        reader.log.outputs.setdefault(one.name, Series()).extend(one.iteration, one.value)
    last = int(block.iteration[-1])
    reader.was_shown(last, [one.name for one in outputs if one.iteration[-1] == last])
    return True


def _times(reader: Reader, block: _Block) -> tuple[_Array, _Array] | None:
    """Working times of the displays and the steps between them; moves the clock."""
    clock, lines = reader.builder.clock, block.lines
    if clock.at is None:
        return None
    year, month, day, of_day = lines.stamps(block.losses)
    own_year = -1 if clock.year is None else clock.year
    if ((year >= 0) & (year != own_year)).any():
        return None
    if not ((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all():
        return None
    if ((month == 2) & (day == 29)).any() and not clock.is_leap:
        return None
    days = np.array(DAYS_BEFORE)[month] + day - 1 + ((month > 2) & clock.is_leap)
    place = days * DAY_US + of_day
    steps = np.diff(np.concatenate(([clock.at], place)))
    if (steps < -HALF_YEAR_US).any():
        return None
    train = reader.log.train
    last_us = train.time_us[-1]
    time_us = clock.now_us + np.cumsum(np.maximum(steps, 0))
    step_us = np.diff(np.concatenate(([last_us], time_us)))
    if reader.builder.tested_since or last_us < 0:
        step_us[0] = 0
    last = LogTime(
        None if year[-1] < 0 else int(year[-1]), int(month[-1]), int(day[-1]), int(of_day[-1])
    )
    clock.jump(int(place[-1]), int(time_us[-1]), last)
    reader.log.latest = clock.latest
    return time_us, step_us


class _Output(NamedTuple):
    """Values of one output; ``weight`` where it is a loss that was not known as one."""

    name: str
    iteration: _Array
    value: _Array
    weight: float | None


def _outputs(reader: Reader, block: _Block, iteration: _Array) -> list[_Output] | None:
    """Each output; None where one has several elements."""
    if not len(block.outputs):
        return []
    log, lines = reader.log, block.lines
    names, which = lines.names(block.outputs)
    if len(names) + len(log.outputs) > MAX_OUTPUTS:
        return None
    at = iteration[block.output_of]
    value = lines.value[block.outputs]
    found: dict[str, _Output] = {}
    for number, key in enumerate(names):
        name = key.decode("utf-8", "replace")[:MAX_NAME]
        mine = which == number if len(names) > 1 else slice(None)
        if name in found or (np.diff(at[mine]) <= 0).any():
            return None
        known = log.outputs.get(name)
        if known is not None and len(known) and known.iteration[-1] >= at[mine][0]:
            return None
        if not reader.builder.outputs.is_single(name):
            return None
        weight = None if name in log.loss_weights else _weight(lines, block.outputs[mine])
        found[name] = _Output(name, at[mine], value[mine], weight)
    return list(found.values())


def _weight(lines: Lines, places: _Array) -> float | None:
    """The first loss weight that stands in lines of outputs."""
    weighted = places[lines.is_weighted[places]]
    if not len(weighted):
        return None
    event = parse(lines.text(int(weighted[0])).decode("utf-8", "replace"))
    return event.weight if isinstance(event, Output) else None
