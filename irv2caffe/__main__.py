"""``python -m irv2caffe`` and the console script."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from irv2caffe.errors import TerminatedError

_INTERRUPTED = 130


def main() -> None:
    """Runs the command line and exits with its code.

    A SIGTERM is heard from the first line to the last: Python itself would end without a word.
    """
    signal.signal(signal.SIGTERM, _end)
    try:
        from irv2caffe.cli import run

        code = run(sys.argv[1:])
    except (KeyboardInterrupt, TerminatedError):  # while it starts, or once more on the way out
        code = _INTERRUPTED
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # all is done and said
    sys.exit(code)


def _end(signum: int, frame: object) -> NoReturn:  # noqa: ARG001
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is on its way out
    sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
