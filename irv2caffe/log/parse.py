"""From lines to events, and from events to the history of a run.

:func:`parse` is pure: one line in, one event or None out. :class:`Reader` adds what needs memory:
which test an output belongs to, the prototxts that Caffe prints, restarts.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from irv2caffe.log import events
from irv2caffe.log.events import Event, LogTime

_NUM = r"([-+]?(?:nan(?:\(ind\))?|inf(?:inity)?|1\.#\w+|(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?))"
_PREFIX = re.compile(
    r"([IWEF])(\d{8}|\d{4}) (\d\d):(\d\d):(\d\d(?:\.\d+)?)\s+\d+ [^\s:\]]+:\d+\] ?(.*)$", re.DOTALL
)
_ITERATION = r"^\s*Iteration (\d+)"
_Maker = Callable[[LogTime | None, "re.Match[str]"], Event]
# Each rule: a word that its lines hold (cheap to look for), the pattern, the event. Messages of
# solver.cpp, sgd_solver.cpp and tools/caffe.cpp of 1.0; the rates in brackets are not used, since
# the first of a process is read from uninitialised memory.
_RULES: tuple[tuple[str, re.Pattern[str], _Maker], ...] = tuple(
    (word, re.compile(pattern, re.IGNORECASE), make)
    for word, pattern, make in (
        (
            "loss = ",
            rf"{_ITERATION}(?: \([^)]*\))?, loss = {_NUM}\s*$",
            lambda t, m: events.Loss(t, int(m[1]), number(m[2])),
        ),
        (
            "net output #",
            rf"^\s*(Train|Test) net output #(\d+): (.+?) = {_NUM}(?: \(\* .*\))?\s*$",
            lambda t, m: events.Output(t, m[1].lower() == "test", int(m[2]), m[3], number(m[4])),
        ),
        (
            ", lr = ",
            rf"{_ITERATION}(?: \([^)]*\))?, lr = {_NUM}\s*$",
            lambda t, m: events.LearningRate(t, int(m[1]), number(m[2])),
        ),
        (
            "Testing net",
            rf"{_ITERATION}, Testing net(?: \(#(\d+)\))?\s*$",
            lambda t, m: events.TestStart(t, int(m[1]), int(m[2] or 0)),
        ),
        (
            "Snapshotting",
            r"^\s*Snapshotting (solver state )?to (?:binary proto file |HDF5 file )?(.+?)\s*$",
            lambda t, m: events.Snapshot(t, m[2], m[1] is not None),
        ),
        ("Solving", r"^\s*Solving ?(.*?)\s*$", lambda t, m: events.Solving(t, m[1])),
        (
            "Initializing solver",
            r"^Initializing solver from parameters",
            lambda t, _: events.SolverDump(t),
        ),
        (
            "Initializing net",
            r"^Initializing net from parameters",
            lambda t, _: events.NetDump(t),
        ),
        (
            "Using GPUs",
            r"^Using GPUs ([\d, ]+)$",
            lambda t, m: events.Devices(t, len(m[1].split(","))),
        ),
        ("Resuming from", r"^Resuming from (.+?)\s*$", lambda t, m: events.Resuming(t, m[1])),
        (
            "Optimization stopped early",
            r"^Optimization stopped early",
            lambda t, _: events.StoppedEarly(t),
        ),
        ("Optimization Done", r"^Optimization Done", lambda t, _: events.Done(t)),
    )
)


def number(text: str) -> float:
    """A number as C's or Microsoft's printf writes it; the latter's ``1.#IND`` is not a number."""
    lowered = text.lower()
    if "#" in lowered:
        sign = "-" if lowered.startswith("-") else ""
        return float(f"{sign}inf") if "#inf" in lowered else float("nan")
    return float(lowered.replace("(ind)", ""))


def split_prefix(line: str) -> tuple[LogTime | None, str, str]:
    """(time, severity, message) of a line; (None, "", line) where it has no glog prefix."""
    match = _PREFIX.match(line)
    if match is None:
        return None, "", line
    severity, date, hours, minutes, seconds, message = match.groups()
    year = int(date[:4]) if len(date) == 8 else None
    of_day = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return LogTime(year, int(date[-4:-2]), int(date[-2:]), of_day), severity, message


def parse(line: str) -> Event | None:
    """The event of one line, with or without glog's prefix; None if it says nothing we know."""
    line = line.strip("\r\n").replace("\0", "")
    time, severity, message = split_prefix(line)
    if severity == "F":
        return events.Fatal(time, message)
    for word, pattern, make in _RULES:
        if word in message:
            match = pattern.match(message)
            if match is not None:
                return make(time, match)
    return None
