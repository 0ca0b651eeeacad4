"""Work on files of strangers in a process of its own, so that a crash there is only an error here.

LMDB maps a file and believes what is in it: a damaged one can end the process that reads it.
"""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from irv2caffe import errors
from irv2caffe.errors import FormatError, InputError, Irv2CaffeError

if TYPE_CHECKING:
    from collections.abc import Callable

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from irv2caffe.data.guarded import main; main()"
)
_ALLOWED = {
    "examine": "irv2caffe.data.examine",
    "compare": "irv2caffe.data.compare",
    "draw_sheet": "irv2caffe.data.sheet",
}
_SHOWN_EVERY = 500


def call_guarded(
    what: str,
    folders: list[Path],
    arguments: dict[str, Any],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Any:
    """Calls a function of a database in a process of its own.

    Args:
        what: ``examine``, ``compare`` or ``draw_sheet``.
        folders: its paths.
        arguments: its other arguments.
        progress: called with (done, total).

    Returns:
        What the function returned, as a dict where it was a dataclass.

    Raises:
        FormatError: the process died of the database.
        Irv2CaffeError: what the function raised.
    """
    call = {"what": what, "paths": [str(path) for path in folders], "arguments": arguments}
    command = [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path)]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps(call).encode() + b"\n")
            child.stdin.flush()
        for line in child.stdout:
            answer = json.loads(line)
            if "progress" in answer:
                progress(*answer["progress"])
            elif "error" in answer:
                raise _raised(answer)
            else:
                return answer["result"]
        raise _died(child.wait(), folders)
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def _raised(answer: dict[str, Any]) -> Irv2CaffeError:
    kind = getattr(errors, answer["error"], Irv2CaffeError)
    error = kind(answer["message"], answer["hint"])
    assert isinstance(error, Irv2CaffeError)
    return error


def _died(code: int, folders: list[Path]) -> FormatError:
    how = f"exit code {code}"
    if code < 0:
        with suppress(ValueError):
            how = signal.Signals(-code).name
    return FormatError(
        f"data.mdb is damaged: reading it ends with {how}",
        "copy it again, or build it again",
        path=folders[0],
    )


def main() -> None:
    """The other process: one call from standard input, its answer to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = sys.stdout.buffer
    call = json.loads(sys.stdin.buffer.readline())
    function = getattr(importlib.import_module(_ALLOWED[call["what"]]), call["what"])
    arguments = call["arguments"]
    if call["what"] != "draw_sheet":
        arguments["progress"] = _Progress(answers)
    try:
        result = function(*(Path(path) for path in call["paths"]), **arguments)
    except Irv2CaffeError as error:
        words = {"message": error.message, "hint": error.hint}
        _send(answers, {"error": type(error).__name__, **words})
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        message = f"cannot read{where}: {error.strerror or error}"
        _send(answers, {"error": InputError.__name__, "message": message, "hint": ""})
    except MemoryError:
        words = {"message": "a record needs more memory than there is", "hint": ""}
        _send(answers, {"error": InputError.__name__, **words})
    else:
        is_plain = result is None or isinstance(result, (int, str))
        _send(answers, {"result": result if is_plain else asdict(result)})


class _Progress:
    def __init__(self, answers: IO[bytes]) -> None:
        self._answers = answers

    def __call__(self, done: int, total: int) -> None:
        if done % _SHOWN_EVERY == 0 or done == total:
            _send(self._answers, {"progress": [done, total]})


def _send(answers: IO[bytes], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()
