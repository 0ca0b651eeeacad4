"""Parses a line of a log to an event, for every Caffe from 0.9 on and its forks.

Messages are those of solver.cpp, sgd_solver.cpp, data_layer.cpp and tools/caffe.cpp. The rates in
brackets are not used: Caffe computes the first one of a process from uninitialised memory.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from irv2caffe.log.read import events
from irv2caffe.log.read.events import Event, LogTime
from irv2caffe.log.read.outputs import MAX_NAME
from irv2caffe.log.read.unwrap import unescape, unwrap

if TYPE_CHECKING:
    from collections.abc import Callable

_NUM = r"[-+]?(?:nan(?:\(ind\))?|inf(?:inity)?|1\.#\w{1,8}|(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?)"
NUMBER = re.compile(_NUM, re.ASCII | re.IGNORECASE)
# Sources are ``solver.cpp:239`` or whole paths, on Windows with blanks. Copies may lack the letter.
_PREFIX = re.compile(
    r"([IWEF]?)(\d{8}|\d{4}) (\d\d):(\d\d):(\d\d)\.(\d{1,6}) {1,9}(\d{1,10}) "
    r"(?:[^\s\]]{1,400}|[^\]]{1,400}\.\w{1,4}:\d{1,6})\] ?",
    re.ASCII,
)
# The rest of a prefix whose columns before the source were cut off.
_SOURCE = re.compile(r"[^\]]{0,99}?\b[\w.+-]{1,99}\.(?:cpp|cc|cxx|cu|hpp|h):\d{1,6}\] ?", re.ASCII)
# NVCaffe 0.17 puts rank and device before a message: "[0.0] ", in tests "(0.1) ".
_DEVICE = re.compile(r"\s*(?:[\[(]\d{1,6}(?:\.\d{1,6})?[\])]\s+)?", re.ASCII)
# "#1" becomes a link in issue trackers and their mails.
_OUTPUT = re.compile(
    r"(Train|Test) net output (?:mAP )?(?:[\w.-]{1,99}/[\w.-]{1,99})?#(\d{1,9})"
    r"(?: <https?://\S{1,300}>)?: ",
    re.ASCII,
)
# The rate may be garbage, which Microsoft's printf writes as "-nan(ind)".
_STEP = r"Iteration (?P<iteration>\d{1,18})(?: \((?:[^()]|\([^()]*\))*\))?"

_Stamp = tuple[LogTime | None, int | None]
_EPOCHS = rf"(?:, (?P<epoch>{_NUM})/(?P<num_epochs>{_NUM})ep)?"
_NORMS = rf"\(L2 norm (?P<norm>{_NUM}) > (?P<limit>{_NUM})\)"
_GPUS = r"\d{1,6}(?:, ?\d{1,6})*"
_SCORES = "loss|overall accuracy|mean accuracy|mean IU|fwavacc"


def _score(time: LogTime | None, thread: int | None, index: int, value: float) -> Event:
    """An output of a test in the first Caffes, which did not print names."""
    return events.Output(time, thread, True, index, f"score {index}", value)


# First word, event, fixed fields and pattern of each message; groups give the other fields.
_MESSAGES: tuple[tuple[str, Callable[..., Event], dict[str, Any], str], ...] = (
    # Xilinx' fork appends ", remaining 2 hours".
    ("Iteration", events.Loss, {}, rf"{_STEP}{_EPOCHS}, loss = (?P<loss>{_NUM})(?:, [a-z].*)?"),
    (
        "Iteration", events.LearningRate, {},
        rf"{_STEP}, lr = (?P<lr>{_NUM})(?:, (?:m|lrm|wd|gs) = {_NUM})*",
    ),
    ("Iteration", events.TestStart, {}, rf"{_STEP}, Testing net(?: \(#(?P<net>\d{{1,6}})\))?"),
    ("Test", _score, {}, rf"Test score #\s?(?P<index>\d{{1,9}}): (?P<value>{_NUM})"),
    (
        "Test", events.Output, {"is_test": True, "index": -1, "name": "test loss"},
        rf"Test loss: (?P<value>{_NUM})",
    ),
    ("Test", events.TestInterrupted, {}, r"Test interrupted\..*"),
    (
        "Snapshotting", events.Snapshot, {"is_state": True},
        r"Snapshotting solver state to (?:binary proto file |HDF5 file )?(?P<path>.+)",
    ),
    (
        "Snapshotting", events.Snapshot, {"is_state": False},
        r"Snapshotting to (?:binary proto file |HDF5 file )?(?P<path>.+)",
    ),
    ("Solving", events.Solving, {}, r"Solving ?(?P<name>.*?)(?: Learning Rate Policy: \S+)?"),
    ("Initializing", events.SolverDump, {}, r"Initializing solver from parameters.*"),
    ("Initializing", events.NetDump, {}, r"Initializing net from parameters.*"),
    ("Using", events.Devices, {}, rf"Using GPUs (?P<gpus>{_GPUS})"),
    ("Use", events.Devices, {"gpus": ()}, r"Use CPU\.?"),
    ("Use", events.Devices, {}, r"Use GPU with device ID (?P<gpus>\d{1,6})"),
    ("Training", events.Processes, {}, r"Training with (?P<num_processes>\d{1,6}) processes"),
    ("GPU", events.DeviceName, {}, r"GPU (?P<gpu>\d{1,6}): (?P<name>.+)"),
    ("output", events.DataShape, {}, r"output data size: (?P<batch>\d{1,9}),.*"),
    ("Resuming", events.Resuming, {}, r"Resuming from (?P<path>.+)"),
    ("Restoring", events.Resuming, {}, r"Restoring previous solver status from (?P<path>.+)"),
    ("Finetuning", events.Finetuning, {}, r"Finetuning from (?P<path>.+)"),
    (
        "Gradient", events.Clip, {},
        rf"Gradient clipping: scaling down gradients {_NORMS}.*",
    ),
    ("Waiting", events.Waiting, {}, rf"Waiting for data(?:: (?P<waited_s>{_NUM}) s of .*)?"),
    ("Data", events.Waiting, {}, "Data layer prefetch queue empty"),
    ("Optimization", events.StoppedEarly, {}, r"Optimization stopped early.*"),
    ("Optimization", events.Done, {}, r"Optimization Done.*"),
    (
        "Root", events.Fork, {"name": "NVCaffe"},
        r"Root Solver performance on device \d+: .*",
    ),
    ("[MultiGPU]", events.Fork, {"name": "NVCaffe"}, r"\[MultiGPU\] .*"),
    (
        "Batch", events.Fork, {"name": "NVCaffe"},
        r"Batch size must be divisible by the number of solvers.* to \d{1,9}",
    ),
    (
        "iter", events.Fork, {"name": "Intel Caffe"},
        r"iter \d+, forward_backward_update_time: .*",
    ),
    (
        "Log", events.FileHeader, {},
        r"Log file created at: (?P<year>\d{4})[/-](?P<month>\d\d)[/-].*",
    ),
    ("Check", events.Fatal, {}, r"(?P<message>Check failed: .*)"),
    ("terminate", events.Fatal, {}, r"(?P<message>terminate called .*)"),
    ("***", events.Killed, {}, r"\*\*\* (?P<signal>SIG\w{2,10}) \(@.*\) received by PID .*"),
)  # fmt: skip
# From SSD's solver for each class, and from the script beside FCN for all images.
_CLASS = re.compile(
    rf"(?P<name>class(?P<index>\d{{1,6}})): (?P<value>{_NUM})", re.ASCII | re.IGNORECASE
)
_SCORE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})? "
    rf"Iteration (?P<iteration>\d{{1,18}}) (?P<name>{_SCORES}) (?P<value>{_NUM})",
    re.ASCII | re.IGNORECASE,
)
RULES: dict[str, list[tuple[re.Pattern[str], Callable[..., Event], dict[str, Any]]]] = {}
for _word, _make, _fixed, _pattern in _MESSAGES:
    _compiled = re.compile(_pattern, re.ASCII | re.IGNORECASE | re.DOTALL)
    RULES.setdefault(_word, []).append((_compiled, _make, _fixed))
# Displays that only NVIDIA's fork prints, from its version 0.14 on, and before it.
_NVCAFFE = re.compile(
    r"Iteration \d{1,18}(?: \([^)]*\d iter\)| \([^\s)]+ s\)|, lr = \S+, m|.*ep, loss)", re.ASCII
)
_EARLY_NVCAFFE = re.compile(r"Iteration \d{1,18} \([^\s)]+/s\), lr", re.ASCII)


def number(text: str) -> float:
    """A number as C's or Microsoft's printf writes it; the latter's ``1.#IND`` is not a number."""
    lowered = text.lower()
    if "#" in lowered:
        sign = "-" if lowered.startswith("-") else ""
        return float(f"{sign}inf") if "#inf" in lowered else float("nan")
    return float(lowered.replace("(ind)", ""))


_TYPES: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("iteration", "net", "index", "gpu", "batch", "year", "month"), int),
    "num_processes": int,
    **dict.fromkeys(("loss", "epoch", "num_epochs", "lr", "value", "norm", "limit"), number),
    "waited_s": number,
    "gpus": lambda text: tuple(map(int, text.split(","))),
}


def split_prefix(line: str) -> tuple[LogTime | None, int | None, str, str]:
    """(time, thread, severity, message) of a line; (None, None, "", message) without a stamp.

    If two threads wrote a line at once, its last message is used, which is whole. Text before
    the prefix (stamps of containers and schedulers) is dropped.
    """
    match = _PREFIX.match(line)
    more = line.find("] ", 0 if match is None else match.end()) >= 0
    if more:
        start = 0 if match is None else match.end()
        for match in _PREFIX.finditer(line, start):  # noqa: B007 - the last one
            pass
    if match is None:
        cut = _SOURCE.match(line) if more else None
        return None, None, "", line if cut is None else line[cut.end() :]
    severity, date, hours, minutes, seconds, fraction, thread = match.groups()
    year = int(date[:4]) if len(date) == 8 else None
    of_day = (int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * 1_000_000
    time = LogTime(year, int(date[-4:-2]), int(date[-2:]), of_day + int(fraction.ljust(6, "0")))
    return time, int(thread), severity, line[match.end() :]


def parse(line: str) -> Event | None:
    """The event of one line, with or without glog's prefix; None if it has none."""
    time, thread, severity, message = split_prefix(clean(line))
    return parse_message((time, thread), severity, message)


def clean(line: str) -> str:
    """A line without its line end, NULs and additions of terminals, containers and web pages.

    NULs come from holes in files after a crash, and from UTF-16, which PowerShell writes.
    """
    if "\0" in line:
        line = line.replace("\0", "")
    return unwrap(line.strip("\r\n\ufeff"))


def lead_of(line: str) -> str:
    """The text before glog's prefix (a container's time stamp, a rank); usually empty.

    Args:
        line: cleaned, with a prefix.
    """
    match = _PREFIX.search(line)
    return "" if match is None else line[: match.start()]


def parse_message(stamp: _Stamp, severity: str, message: str) -> Event | None:
    """The event of a message, after :func:`split_prefix`."""
    if severity == "F":
        return events.Fatal(*stamp, message)
    message = _without_device(message)
    found = _event(stamp, message)
    if found is None and (unescaped := unescape(message)) != message:
        found = _event(stamp, _without_device(unescaped))
    if found is not None or severity not in {"W", "E"} or message.startswith("["):
        return found  # debug_info prints its norms with severity E
    return events.Warned(*stamp, message)


def _without_device(message: str) -> str:
    return message[_DEVICE.match(message).end() :].rstrip()  # type: ignore[union-attr]


def _event(stamp: _Stamp, message: str) -> Event | None:
    word = message.partition(" ")[0]
    if word in {"Train", "Test"} and (output := _output(stamp, message)) is not None:
        return output
    if word.startswith("class") and stamp[0] is not None:
        match = _CLASS.fullmatch(message)
        if match is not None:
            return events.Output(*stamp, is_test=True, **_fields(match))
    if word[4:5] == "-" and (match := _SCORE.fullmatch(message)) is not None:
        return events.Score(*stamp, **_fields(match))
    for pattern, make, fixed in RULES.get(word, ()):
        match = pattern.fullmatch(message)
        if match is not None:
            return make(*stamp, **_fields(match), **fixed)
    return None


def _fields(match: re.Match[str]) -> dict[str, Any]:
    """The named groups of a match as fields of an event."""
    return {
        name: _TYPES.get(name, str)(text)
        for name, text in match.groupdict().items()
        if text is not None
    }


def fork_of(message: str) -> str:
    """The fork that prints displays in this form; empty for BVLC's Caffe."""
    if _NVCAFFE.search(message):
        return "NVCaffe"
    return "NVCaffe 0.12 or 0.13" if _EARLY_NVCAFFE.search(message) else ""


def _output(stamp: _Stamp, message: str) -> Event | None:
    """``Train net output #0: NAME = V (* W = L loss)``; names may hold anything."""
    head = _OUTPUT.match(message)
    if head is None:
        return None
    rest, weight = message[head.end() :], None
    if rest.endswith(" loss)"):
        before, _, weighted = rest.rpartition(" (* ")
        rest, weight_text = before or rest, weighted.partition(" = ")[0]
        weight = number(weight_text) if before and NUMBER.fullmatch(weight_text) else None
    name, _, value = rest.rpartition(" = ")
    if not name or NUMBER.fullmatch(value) is None:
        return None
    name = name[:MAX_NAME]
    return events.Output(*stamp, head[1] == "Test", int(head[2]), name, number(value), weight)
