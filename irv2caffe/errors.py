"""Exception classes and exit codes.

All errors that a user can cause or meet are Irv2CaffeErrors, with a message, a hint and an exit
code; the command line prints them without a traceback::

    Irv2CaffeError           1
    +-- UsageError           2    invalid options
    +-- InputError           1    invalid input
    |   +-- MissingInputError     file or folder not found
    |   +-- FormatError           invalid file contents
    |   |   +-- NetError          invalid net
    |   |   +-- UnreadableError   file that exists but cannot be read
    |   +-- WeightsError          weights that do not fit the net
    +-- OutputError          1    output cannot be written
    |   +-- OutputExistsError     output already exists
    +-- MissingExtraError    1    optional Python package not installed
    +-- CaffeNotFoundError   1    no Caffe found
    +-- InstallError         1    Caffe cannot be installed or does not work
    +-- CaffeFailedError     1    a Caffe program failed
    +-- PlanError            1/2  several errors found before a training starts
    +-- WorkerDiedError      1    a worker process died or hangs

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 finished with findings, 130 interrupted by Ctrl-C
or SIGTERM.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_FINDINGS = 3
EXIT_INTERRUPTED = 130
_MAX_WORD = 80  # difflib takes time quadratic in the length


class Irv2CaffeError(Exception):
    """Base class of the errors that are shown to the user.

    Attributes:
        message: what failed, and where; one line.
        hint: how to solve it; one line, may be empty.
        exit_code: exit code of the program.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class TerminatedError(BaseException):
    """Raised by the handler of SIGTERM; a BaseException, like KeyboardInterrupt.

    It is not a KeyboardInterrupt, because Python 3.11 kills itself with SIGINT if one has passed
    through code run by ``exec``, such as the methods of dataclasses, even if it is caught later.
    """


class UsageError(Irv2CaffeError, ValueError):
    """Options that exclude each other or have invalid values."""

    exit_code = EXIT_USAGE


class InputError(Irv2CaffeError, ValueError):
    """Invalid input."""


class MissingInputError(InputError):
    """A file or folder does not exist."""


class FormatError(InputError):
    """Invalid contents of a file; the message begins with the place.

    Attributes:
        path: the file, or None for a text without one.
        line: line number, from 1, or None.
        column: column number, from 1, or None.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        path: Path | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        place = ":".join(str(part) for part in (path, line, column) if part is not None)
        super().__init__(f"{place}: {message}" if place else message, hint)
        self.path = path
        self.line = line
        self.column = column


class NetError(FormatError):
    """A net that Caffe would not load.

    Attributes:
        layer: the name of the invalid layer, or empty.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        layer: str = "",
        path: Path | None = None,
        line: int | None = None,
    ) -> None:
        super().__init__(message, hint, path=path, line=line)
        self.layer = layer


class UnreadableError(FormatError):
    """A file exists but cannot be read, so that its contents are unknown."""


class WeightsError(InputError):
    """Weights that do not fit the net.

    Attributes:
        problems: all mismatches, one line each.
    """

    def __init__(self, message: str, problems: tuple[str, ...], hint: str = "") -> None:
        super().__init__(message, hint)
        self.problems = problems

    def __str__(self) -> str:
        return "\n  ".join([super().__str__(), *self.problems])


class OutputError(Irv2CaffeError):
    """Output cannot be written."""


class OutputExistsError(OutputError):
    """The output already exists."""


class MissingExtraError(Irv2CaffeError):
    """An optional Python package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed",
            f"run: pip install 'irv2caffe[{extra}]'",
        )


class CaffeNotFoundError(Irv2CaffeError):
    """No Caffe was found."""


class InstallError(Irv2CaffeError):
    """Caffe cannot be installed, or the installed one does not work."""


class CaffeFailedError(Irv2CaffeError):
    """A Caffe program failed."""


class PlanError(Irv2CaffeError):
    """All errors found in the plan of a training, before it starts.

    Attributes:
        problems: the errors, each with its own hint.
    """

    def __init__(self, problems: Sequence[Irv2CaffeError]) -> None:
        super().__init__(
            "; ".join(problem.message for problem in problems),
            "; ".join(problem.hint for problem in problems if problem.hint),
        )
        self.problems = tuple(problems)
        self.exit_code = max(problem.exit_code for problem in problems)


class WorkerDiedError(Irv2CaffeError):
    """A worker process died or hangs."""


def close_matches(word: str, known: Iterable[str]) -> list[str]:
    """Returns up to three known words that are spelled like ``word``, the closest first."""
    return difflib.get_close_matches(word[:_MAX_WORD], list(known), n=3)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns a hint that names the known words spelled like ``word``; empty if there are none."""
    near = close_matches(word, known)
    return f"did you mean {', '.join(near)}?" if near else ""


def first_of(words: Sequence[str], most: int) -> str:
    """Returns ``a, b and 1,234 more``: the first ``most`` words and the number of the others."""
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more:,} more" if more > 0 else "")
