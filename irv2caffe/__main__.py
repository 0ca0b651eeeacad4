"""Entry point of ``python -m irv2caffe`` and of the console script ``irv2caffe``."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from irv2caffe.errors import TerminatedError

_INTERRUPTED = 130


def main() -> None:
    """Runs the command line and exits with its code.

    SIGTERM gives exit code 130 at any time, also while the program is starting or ending.
    """
    signal.signal(signal.SIGTERM, _exit_on_sigterm)
    try:
        from irv2caffe.cli import run

        code = run(sys.argv[1:])
    except (KeyboardInterrupt, TerminatedError):  # during the imports, or a second one at the end
        code = _INTERRUPTED
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the exit code is decided
    sys.exit(code)


def _exit_on_sigterm(signum: int, frame: object) -> NoReturn:  # noqa: ARG001
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
