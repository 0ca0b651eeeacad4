"""A guarded process that reads databases of strangers, so that a crash there is an error here.

LMDB maps a file and trusts its contents: a damaged one can end the process that reads it, or keep
it in an endless loop.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from irv2caffe import errors
from irv2caffe.data.records.headers import MAX_PIXELS
from irv2caffe.errors import FormatError, InputError, Irv2CaffeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from irv2caffe.data.inspect.sandbox import main; main()"
)
_ALLOWED = {
    "sample_database": "irv2caffe.data.inspect.sample",
    "examine": "irv2caffe.data.inspect.database_report",
    "compare": "irv2caffe.data.inspect.compare",
    "draw_sheet": "irv2caffe.data.inspect.contact_sheet",
}
_SHOWN_EVERY_S = 0.2
# Limits without a further record: CPU time, for endless loops, and silence, for lost disks.
_WORK_S = 20.0
_SILENCE_S = 60.0
_PIECE_BYTES = 1 << 16
_ANEW = "copy it again, or build it again"


class Guard:
    """A process that reads databases for this one; it is started by the first call."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def call(
        self,
        what: str,
        folders: list[Path],
        arguments: dict[str, Any],
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> Any:
        """Calls a function of a database.

        Args:
            what: ``sample_database``, ``examine``, ``compare`` or ``draw_sheet``.
            folders: its paths.
            arguments: its other arguments.
            progress: called with (done, total).

        Returns:
            What the function returned, as a dict where it was a dataclass.

        Raises:
            FormatError: the process died of the database, or came to no end with it.
            Irv2CaffeError: what the function raised.
        """
        call = {"what": what, "paths": [str(path) for path in folders], "arguments": arguments}
        if self._child is None:
            self._child = _start_process()
        is_answered = False
        try:
            assert self._child.stdin is not None
            with suppress(BrokenPipeError):
                self._child.stdin.write(json.dumps(call).encode() + b"\n")
                self._child.stdin.flush()
            for line in _lines(self._child, folders):
                answer = json.loads(line)
                if "progress" in answer:
                    progress(*answer["progress"])
                    continue
                is_answered = True
                if "error" in answer:
                    raise _error_of_answer(answer)
                return answer["result"]
            raise _error_of_exit(self._child.wait(), folders if what == "compare" else folders[:1])
        finally:
            if not is_answered:
                self._end()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def _start_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_PIXELS)},
    )


def _lines(child: subprocess.Popen[bytes], folders: list[Path]) -> Iterator[bytes]:
    """The lines of the process, as they come.

    Raises:
        InputError: it has been silent for too long.
    """
    assert child.stdout is not None
    handle = child.stdout.fileno()
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    rest = b""
    while poll.poll(1000 * _SILENCE_S):
        piece = os.read(handle, _PIECE_BYTES)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    raise InputError(
        f"{folders[0]}: no record could be read for {_SILENCE_S:.0f} s",
        "does its disk answer? ls and dd read it too",
    )


def _error_of_answer(answer: dict[str, Any]) -> Irv2CaffeError:
    kind = getattr(errors, answer["error"], Irv2CaffeError)
    error = kind(answer["message"], answer["hint"])
    assert isinstance(error, Irv2CaffeError)
    return error


def _error_of_exit(code: int, databases: list[Path]) -> FormatError:
    how = f"ends with exit code {code}"
    if code == -signal.SIGPROF:
        how = "does not come to an end"
    elif code < 0:
        with suppress(ValueError):
            how = f"ends with {signal.Signals(-code).name}"
    which = " or ".join(map(str, databases))
    return FormatError(f"{which}: data.mdb is damaged: reading it {how}", _ANEW)


def main() -> None:
    """The guarded process: reads calls from standard input, writes answers to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        _answer(json.loads(line), sys.stdout.buffer)


def _answer(call: dict[str, Any], answers: IO[bytes]) -> None:
    function = getattr(importlib.import_module(_ALLOWED[call["what"]]), call["what"])
    arguments = {**call["arguments"], "progress": _Progress(answers)}
    # CPU time is limited, for a disk may be slow; the signal ends the process, wherever it is.
    signal.setitimer(signal.ITIMER_PROF, _WORK_S)
    try:
        result = function(*(Path(path) for path in call["paths"]), **arguments)
        is_plain = result is None or isinstance(result, (int, str))
        answer = {"result": result if is_plain else asdict(result)}
    except Irv2CaffeError as error:
        answer = _failure(type(error), error.message, error.hint)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        answer = _failure(InputError, f"cannot read{where}: {error.strerror or error}")
    except MemoryError:
        answer = _failure(InputError, "a record needs more memory than there is")
    _send(answers, answer)
    signal.setitimer(signal.ITIMER_PROF, 0)


def _failure(kind: type[Irv2CaffeError], message: str, hint: str = "") -> dict[str, Any]:
    return {"error": kind.__name__, "message": message, "hint": hint}


class _Progress:
    def __init__(self, answers: IO[bytes]) -> None:
        self._answers = answers
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now >= self._next or done == total:
            self._next = now + _SHOWN_EVERY_S
            signal.setitimer(signal.ITIMER_PROF, _WORK_S)
            _send(self._answers, {"progress": [done, total]})


def _send(answers: IO[bytes], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()
