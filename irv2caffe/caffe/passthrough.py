"""Replaces this process by a Caffe program; describes which Caffe is used."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from irv2caffe.caffe.command import tool_command
from irv2caffe.caffe.find import FoundCaffe, candidates
from irv2caffe.caffe.gpu_host import read_host
from irv2caffe.caffe.manifest import gpu_build
from irv2caffe.caffe.verify import version
from irv2caffe.errors import CaffeFailedError, InstallError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from irv2caffe.caffe.manifest import GpuBuild


@dataclass(frozen=True)
class Description:
    """Which Caffe is used, and why.

    Attributes:
        program: path of ``caffe``.
        version: its version, or why it is unknown.
        reason: why it was chosen.
        kind: ``runtime`` (made by install-caffe), with what it was built for, or ``native``.
        gpus: for a build for GPUs, whether this machine's can be used; else empty.
        looked: searched places in order: name, and what was found there.
    """

    program: str
    version: str
    reason: str
    kind: str
    gpus: str
    looked: tuple[tuple[str, str], ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns the values for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Returns lines for the user."""
        lines = [
            f"program  {self.program}",
            f"version  {self.version}",
            f"kind     {self.kind}",
            *([f"GPUs     {self.gpus}"] if self.gpus else []),
            f"why      {self.reason}",
            "searched, in this order:",
        ]
        width = max(len(name) for name, _ in self.looked)
        return "\n".join([*lines, *(f"  {name:{width}}  {what}" for name, what in self.looked)])


def describe(found: FoundCaffe, flag: Path | None) -> Description:
    """Describes the Caffe that was found and the places that were searched."""
    try:
        said = version(found)
    except InstallError as error:
        said = f"unknown: {error.message}"
    built = gpu_build(found.root) if found.is_runtime else None
    return Description(
        program=str(found.tools / "caffe"),
        version=said,
        reason=found.reason,
        kind=_kind(found, built),
        gpus=_gpus(built) if built else "",
        looked=tuple(candidates(flag)),
    )


def _kind(found: FoundCaffe, built: GpuBuild | None) -> str:
    if not found.is_runtime:
        return "native"
    return f"runtime, {built.text()}" if built else "runtime, CPU only"


def _gpus(built: GpuBuild) -> str:
    host = read_host()
    fault = built.fault(host)
    if fault:
        return f"cannot be used: {fault[0]}; {fault[1]}"
    shown = ", ".join(f"{arch // 10}.{arch % 10}" for arch in host.archs)
    return f"can be used: driver {host.driver_text}, compute capability {shown}"


def exec_tool(found: FoundCaffe, tool: str, args: Sequence[str]) -> NoReturn:
    """Replaces this process by the program, which gets the terminal, signals and exit code.

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
            "irv2caffe caffe --which shows which Caffe is used",
        ) from error
