"""From a line to an event: a pure function, for every Caffe from 0.9 to the last of its forks.

Messages are those of solver.cpp, sgd_solver.cpp, data_layer.cpp and tools/caffe.cpp. The rates in
brackets are not used: the first of a process is read from uninitialised memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from irv2caffe.log.read import events
from irv2caffe.log.read.events import Event, LogTime
from irv2caffe.log.read.outputs import MAX_NAME
from irv2caffe.log.read.unwrap import mend, unwrap

_NUM = r"([-+]?(?:nan(?:\(ind\))?|inf(?:inity)?|1\.#\w{1,8}|(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?))"
NUMBER = re.compile(_NUM, re.ASCII | re.IGNORECASE)
# Sources are ``solver.cpp:239``, or whole paths, on Windows with blanks. Pastes lack the letter.
_PREFIX = re.compile(
    r"([IWEF]?)(\d{8}|\d{4}) (\d\d):(\d\d):(\d\d)\.(\d{1,6}) {1,9}(\d{1,10}) "
    r"(?:[^\s\]]{1,400}|[^\]]{1,400}\.\w{1,4}:\d{1,6})\] ?",
    re.ASCII,
)
# What is left of a prefix where the columns before the source were cut off.
_SOURCE = re.compile(r"[^\]]{0,99}?\b[\w.+-]{1,99}\.(?:cpp|cc|cxx|cu|hpp|h):\d{1,6}\] ?", re.ASCII)
# NVCaffe 0.17 puts rank and device before a message: "[0.0] ", in tests "(0.1) ".
_DEVICE = re.compile(r"\s*(?:[\[(]\d{1,6}(?:\.\d{1,6})?[\])]\s+)?", re.ASCII)
# "#1" is a link where a log went through an issue or its mails.
_OUTPUT = re.compile(
    r"(Train|Test) net output (?:mAP )?(?:[\w.-]{1,99}/[\w.-]{1,99})?#(\d{1,9})"
    r"(?: <https?://\S{1,300}>)?: ",
    re.ASCII,
)
# The rate may be garbage, which Microsoft's printf writes as "-nan(ind)".
_STEP = r"Iteration (\d{1,18})(?: \((?:[^()]|\([^()]*\))*\))?"

# What SSD's solver says of each class, and what the script beside FCN prints of all images.
_CLASS = re.compile(rf"class(\d{{1,6}}): {_NUM}", re.ASCII | re.IGNORECASE)
_SCORE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})? Iteration (\d{1,18}) "
    rf"(loss|overall accuracy|mean accuracy|mean IU|fwavacc) {_NUM}",
    re.ASCII | re.IGNORECASE,
)

_Stamp = tuple[LogTime | None, int | None]
_Maker = Callable[[_Stamp, "re.Match[str]"], Event]


def _rule(pattern: str, make: _Maker) -> tuple[re.Pattern[str], _Maker]:
    return re.compile(pattern, re.ASCII | re.IGNORECASE | re.DOTALL), make


def _loss(stamp: _Stamp, match: re.Match[str]) -> Event:
    epoch = (number(match[2]), number(match[3])) if match[2] else (None, None)
    return events.Loss(*stamp, int(match[1]), number(match[4]), *epoch)


# By the first word of a message: the patterns of the messages that begin with it, and their event.
RULES: dict[str, tuple[tuple[re.Pattern[str], _Maker], ...]] = {
    "Iteration": (
        # Xilinx' fork goes on ", remaining 2 hours".
        _rule(rf"{_STEP}(?:, {_NUM}/{_NUM}ep)?, loss = {_NUM}(?:, [a-z].*)?", _loss),
        _rule(
            rf"{_STEP}, lr = {_NUM}(?:, (?:m|lrm|wd|gs) = {_NUM})*",
            lambda at, m: events.LearningRate(*at, int(m[1]), number(m[2])),
        ),
        _rule(
            rf"{_STEP}, Testing net(?: \(#(\d{{1,6}})\))?",
            lambda at, m: events.TestStart(*at, int(m[1]), int(m[2] or 0)),
        ),
    ),
    "Test": (
        _rule(
            rf"Test score #\s?(\d{{1,9}}): {_NUM}",
            lambda at, m: events.Output(*at, True, int(m[1]), f"score {m[1]}", number(m[2])),
        ),
        _rule(
            rf"Test loss: {_NUM}",
            lambda at, m: events.Output(*at, True, -1, "test loss", number(m[1])),
        ),
        _rule(r"Test interrupted\..*", lambda at, _: events.TestInterrupted(*at)),
    ),
    "Snapshotting": (
        _rule(
            r"Snapshotting (solver state )?to (?:binary proto file |HDF5 file )?(.+)",
            lambda at, m: events.Snapshot(*at, m[2], m[1] is not None),
        ),
    ),
    "Solving": (
        _rule(
            r"Solving ?(.*?)(?: Learning Rate Policy: \S+)?",
            lambda at, m: events.Solving(*at, m[1]),
        ),
    ),
    "Initializing": (
        _rule(r"Initializing solver from parameters.*", lambda at, _: events.SolverDump(*at)),
        _rule(r"Initializing net from parameters.*", lambda at, _: events.NetDump(*at)),
    ),
    "Using": (
        _rule(
            r"Using GPUs (\d{1,6}(?:, ?\d{1,6})*)",
            lambda at, m: events.Devices(*at, tuple(map(int, m[1].split(",")))),
        ),
    ),
    "Use": (
        _rule(r"Use CPU\.?", lambda at, _: events.Devices(*at, ())),
        _rule(r"Use GPU with device ID (\d{1,6})", lambda at, m: events.Devices(*at, (int(m[1]),))),
    ),
    "GPU": (_rule(r"GPU (\d{1,6}): (.+)", lambda at, m: events.DeviceName(*at, int(m[1]), m[2])),),
    "output": (
        _rule(r"output data size: (\d{1,9}),.*", lambda at, m: events.DataShape(*at, int(m[1]))),
    ),
    "Resuming": (_rule(r"Resuming from (.+)", lambda at, m: events.Resuming(*at, m[1])),),
    "Restoring": (
        _rule(
            r"Restoring previous solver status from (.+)", lambda at, m: events.Resuming(*at, m[1])
        ),
    ),
    "Finetuning": (_rule(r"Finetuning from (.+)", lambda at, m: events.Finetuning(*at, m[1])),),
    "Gradient": (
        _rule(
            rf"Gradient clipping: scaling down gradients \(L2 norm {_NUM} > {_NUM}\).*",
            lambda at, m: events.Clip(*at, number(m[1]), number(m[2])),
        ),
    ),
    "Optimization": (
        _rule(r"Optimization stopped early.*", lambda at, _: events.StoppedEarly(*at)),
        _rule(r"Optimization Done.*", lambda at, _: events.Done(*at)),
    ),
    "Root": (
        _rule(
            r"Root Solver performance on device \d+: .*", lambda at, _: events.Fork(*at, "NVCaffe")
        ),
    ),
    "[MultiGPU]": (_rule(r"\[MultiGPU\] .*", lambda at, _: events.Fork(*at, "NVCaffe")),),
    "Batch": (
        _rule(
            r"Batch size must be divisible by the number of solvers.* to \d{1,9}",
            lambda at, _: events.Fork(*at, "NVCaffe"),
        ),
    ),
    "iter": (
        _rule(
            r"iter \d+, forward_backward_update_time: .*",
            lambda at, _: events.Fork(*at, "Intel Caffe"),
        ),
    ),
    "Log": (
        _rule(
            r"Log file created at: (\d{4})[/-](\d\d)[/-].*",
            lambda at, m: events.FileHeader(*at, int(m[1]), int(m[2])),
        ),
    ),
    "Check": (_rule(r"(Check failed: .*)", lambda at, m: events.Fatal(*at, m[1])),),
    "terminate": (_rule(r"(terminate called .*)", lambda at, m: events.Fatal(*at, m[1])),),
    "***": (
        _rule(
            r"\*\*\* (SIG\w{2,10}) \(@.*\) received by PID .*",
            lambda at, m: events.Killed(*at, m[1]),
        ),
    ),
}
# What only NVIDIA's fork writes in a display, from its 0.14 on and before.
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


def split_prefix(line: str) -> tuple[LogTime | None, int | None, str, str]:
    """(time, thread, severity, message) of a line; (None, None, "", message) without a stamp.

    Where two writers tore a line, the last message in it is whole and counts. What stands before
    the prefix (the stamps of containers and schedulers) does not.
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
    """The event of one line, with or without glog's prefix; None if it says nothing we know."""
    time, thread, severity, message = split_prefix(clean(line))
    return parse_message((time, thread), severity, message)


def clean(line: str) -> str:
    """A line without its end and without what torn, converted and pasted files leave in it.

    NULs come from holes in files after a crash, and from UTF-16, as which PowerShell redirects.
    """
    if "\0" in line:
        line = line.replace("\0", "")
    return unwrap(line.strip("\r\n\ufeff"))


def lead_of(line: str) -> str:
    """What stands before glog's prefix in every line (a container's stamp, a rank); mostly nothing.

    Args:
        line: cleaned, with a prefix.
    """
    match = _PREFIX.search(line)
    return "" if match is None else line[: match.start()]


def parse_message(stamp: _Stamp, severity: str, message: str) -> Event | None:
    """The event of a message whose prefix :func:`split_prefix` took off."""
    if severity == "F":
        return events.Fatal(*stamp, message)
    message = _begin(message)
    found = _said(stamp, message)
    if found is None and (mended := mend(message)) != message:
        found = _said(stamp, _begin(mended))
    if found is not None or severity not in {"W", "E"} or message.startswith("["):
        return found  # debug_info writes its norms with the severity of an error
    return events.Warned(*stamp, message)


def _begin(message: str) -> str:
    return message[_DEVICE.match(message).end() :].rstrip()  # type: ignore[union-attr]


def _said(stamp: _Stamp, message: str) -> Event | None:
    word = message.partition(" ")[0]
    if word in {"Train", "Test"} and (output := _output(stamp, message)) is not None:
        return output
    if word.startswith("class") and stamp[0] is not None:
        match = _CLASS.fullmatch(message)
        if match is not None:
            name = f"class{match[1]}"
            return events.Output(*stamp, True, int(match[1]), name, number(match[2]))
    if word[4:5] == "-" and (match := _SCORE.fullmatch(message)) is not None:
        return events.Score(*stamp, int(match[1]), match[2], number(match[3]))
    for pattern, make in RULES.get(word, ()):
        match = pattern.fullmatch(message)
        if match is not None:
            return make(stamp, match)
    return None


def fork_of(message: str) -> str:
    """The fork that writes its displays like this one; empty for BVLC's own."""
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
        rest, said = before or rest, weighted.partition(" = ")[0]
        weight = number(said) if before and NUMBER.fullmatch(said) else None
    name, _, value = rest.rpartition(" = ")
    if not name or NUMBER.fullmatch(value) is None:
        return None
    name = name[:MAX_NAME]
    return events.Output(*stamp, head[1] == "Test", int(head[2]), name, number(value), weight)
