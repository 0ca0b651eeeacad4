"""Runs a program of Caffe in our place; says which Caffe that is."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from irv2caffe.caffe.command import tool_command
from irv2caffe.caffe.find import FoundCaffe, candidates
from irv2caffe.caffe.verify import version
from irv2caffe.errors import CaffeFailedError, InstallError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Description:
    """Which Caffe, and why.

    Attributes:
        program: that runs.
        version: that it says, or why it says none.
        reason: why this one.
        kind: ``runtime`` (made by install-caffe, CPU only) or ``native``.
        looked: all places looked at, in order: name, and what was found there.
    """

    program: str
    version: str
    reason: str
    kind: str
    looked: tuple[tuple[str, str], ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def text(self) -> str:
        """For a person."""
        lines = [
            f"program  {self.program}",
            f"version  {self.version}",
            f"kind     {self.kind}",
            f"why      {self.reason}",
            "looked at, in this order:",
        ]
        width = max(len(name) for name, _ in self.looked)
        return "\n".join([*lines, *(f"  {name:{width}}  {what}" for name, what in self.looked)])


def describe(found: FoundCaffe, flag: Path | None) -> Description:
    """Describes the Caffe that was found, and the places that were looked at."""
    try:
        said = version(found)
    except InstallError as error:
        said = f"unknown: {error.message}"
    return Description(
        program=str(found.tools / "caffe"),
        version=said,
        reason=found.reason,
        kind="runtime, CPU only" if found.is_runtime else "native",
        looked=tuple(candidates(flag)),
    )


def exec_tool(found: FoundCaffe, tool: str, args: Sequence[str]) -> NoReturn:
    """Becomes the program: arguments, terminal, signals and exit code are then its own.

    Raises:
        CaffeFailedError: it cannot be started.
    """
    command = tool_command(found, tool, args)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(command.argv[0], list(command.argv), dict(command.env))  # noqa: S606
    except OSError as error:
        raise CaffeFailedError(
            f"cannot start {command.argv[0]}: {error.strerror}",
            "irv2caffe caffe --which says which Caffe is used",
        ) from error
