"""What can go wrong, as one tree; every error carries a hint and an exit code.

::

    Irv2CaffeError                exit 1
    +-- UsageError                exit 2   options that do not go together
    +-- InputError                exit 1   something the user gave cannot be used
    |   +-- MissingInputError              a file or folder that is not there
    |   +-- FormatError                    a file that is not what it should be
    |       +-- NetError                   a net that Caffe would refuse
    |       +-- UnreadableError            a file that is there, but not for us
    |   +-- WeightsError                   weights that do not fit a network
    +-- OutputError               exit 1   a result cannot be written
    |   +-- OutputExistsError              something stands where the result should go
    +-- MissingExtraError         exit 1   a package that only some commands need
    +-- CaffeNotFoundError        exit 1   no Caffe on this machine
    +-- InstallError              exit 1   Caffe could not be installed
    +-- CaffeFailedError          exit 1   a Caffe program ended badly
    +-- PlanError                 exit 1   several of these at once, before a training starts
    +-- WorkerDiedError           exit 1   a process that helped this one is gone

Exit codes of the program: 0 done, 1 failed, 2 usage, 3 finished with findings, 130 interrupted.
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
_MAX_WORD = 80  # to find what is near a longer one takes long


class Irv2CaffeError(Exception):
    """Base of all errors a user can cause or meet.

    Attributes:
        message: one line that says what is wrong.
        hint: one line that says the way out; may be empty.
        exit_code: what the program exits with.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class TerminatedError(BaseException):
    """SIGTERM came. No error that anything may wrap or collect: the way out, as for Ctrl-C.

    Not a KeyboardInterrupt: where one passes through a text that ``exec`` runs, as those of
    dataclasses are, Python 3.11 dies of SIGINT in the end, whoever handled it.
    """


class UsageError(Irv2CaffeError, ValueError):
    """Options that do not go together or have values outside their range."""

    exit_code = EXIT_USAGE


class InputError(Irv2CaffeError, ValueError):
    """Something the user gave cannot be used."""


class MissingInputError(InputError):
    """A file or folder that is not there."""


class FormatError(InputError):
    """A file that is not what it should be.

    Attributes:
        path: the file, or None when the text did not come from one.
        line: line number from 1, or None.
        column: column number from 1, or None.
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
    """A net that Caffe would refuse.

    Attributes:
        layer: the name of the layer it fails at, or empty.
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
    """A file that is there and cannot be read: what is in it, nobody knows."""


class WeightsError(InputError):
    """Weights that do not fit a network.

    Attributes:
        problems: all that does not fit, one line each.
    """

    def __init__(self, message: str, problems: tuple[str, ...], hint: str = "") -> None:
        super().__init__(message, hint)
        self.problems = problems

    def __str__(self) -> str:
        return "\n  ".join([super().__str__(), *self.problems])


class OutputError(Irv2CaffeError):
    """A result cannot be written."""


class OutputExistsError(OutputError):
    """Something stands where the result should go."""


class MissingExtraError(Irv2CaffeError):
    """A package that only some commands need is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed",
            f"run: pip install 'irv2caffe[{extra}]'",
        )


class CaffeNotFoundError(Irv2CaffeError):
    """No Caffe was found on this machine."""


class InstallError(Irv2CaffeError):
    """Caffe could not be installed."""


class CaffeFailedError(Irv2CaffeError):
    """A Caffe program ended badly."""


class PlanError(Irv2CaffeError):
    """Several things keep a training from its start.

    Attributes:
        problems: all of them, each with its own hint.
    """

    def __init__(self, problems: Sequence[Irv2CaffeError]) -> None:
        super().__init__(
            "; ".join(problem.message for problem in problems),
            "; ".join(problem.hint for problem in problems if problem.hint),
        )
        self.problems = tuple(problems)
        self.exit_code = max(problem.exit_code for problem in problems)


class WorkerDiedError(Irv2CaffeError):
    """A process that helped this one is gone, or hangs."""


def close_matches(word: str, known: Iterable[str]) -> list[str]:
    """Returns up to three known words that are spelled like ``word``, the closest first."""
    return difflib.get_close_matches(word[:_MAX_WORD], list(known), n=3)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns a hint that names the known words spelled like ``word``; empty if there are none."""
    near = close_matches(word, known)
    return f"did you mean {', '.join(near)}?" if near else ""


def first_of(words: Sequence[str], most: int) -> str:
    """``a, b and 1,234 more``: the first few of many, for a message."""
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more:,} more" if more > 0 else "")
