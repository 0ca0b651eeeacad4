"""Replaces this process by a Caffe program; describes which Caffe is used."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from irv2caffe.caffe.capability import capability, find_caffe_for_gpus
from irv2caffe.caffe.command import tool_command
from irv2caffe.caffe.find import FoundCaffe, candidates, find_caffe
from irv2caffe.caffe.gpu_host import read_host
from irv2caffe.caffe.manifest import gpu_build
from irv2caffe.caffe.toolkits import capabilities
from irv2caffe.errors import CaffeFailedError, InstallError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from irv2caffe.caffe.capability import Capability
    from irv2caffe.caffe.manifest import GpuBuild


@dataclass(frozen=True)
class Description:
    """Which Caffe is used, and why.

    Attributes:
        program: path of ``caffe``.
        version: its version, or why it is unknown.
        reason: why it was chosen.
        kind: ``runtime`` (made by install-caffe) or ``native``, with what it was built for.
        built: for a build of install-caffe --cuda, what it was built for; else None.
        gpus: for such a build, whether this machine's GPUs can be used; else empty.
        for_gpus: the program that train takes for GPUs, if it is another one; else empty.
        looked: searched places in order: name, and what was found there.
    """

    program: str
    version: str
    reason: str
    kind: str
    built: GpuBuild | None
    gpus: str
    for_gpus: str
    looked: tuple[tuple[str, str], ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns the values for JSON."""
        built = self.built.as_dict() if self.built else None
        return {**asdict(self), "built": built}

    def text(self) -> str:
        """Returns lines for the user."""
        lines = [
            f"program  {self.program}",
            f"version  {self.version}",
            f"kind     {self.kind}",
            *([f"GPUs     {self.gpus}"] if self.gpus else []),
            f"why      {self.reason}",
            *([f"for GPUs {self.for_gpus}"] if self.for_gpus else []),
            "searched, in this order:",
        ]
        width = max(len(name) for name, _ in self.looked)
        return "\n".join([*lines, *(f"  {name:{width}}  {what}" for name, what in self.looked)])


def describe(found: FoundCaffe, flag: Path | None) -> Description:
    """Describes the Caffe that was found and the places that were searched."""
    can = None
    try:
        can = capability(found)
        said = can.version
    except InstallError as error:
        said = f"unknown: {error.message}"
    built = gpu_build(found.root) if found.is_runtime else None
    other = None if flag is not None else find_caffe_for_gpus()
    return Description(
        program=str(found.tools / "caffe"),
        version=said,
        reason=found.reason,
        kind=_kind(found, can, built),
        built=built,
        gpus=_gpus(built) if built else "",
        for_gpus=str(other.tools / "caffe") if other is not None and other != found else "",
        looked=tuple(candidates(flag)),
    )


def _kind(found: FoundCaffe, can: Capability | None, built: GpuBuild | None) -> str:
    if built is not None:
        return f"runtime, {built.text()}"
    name = "runtime" if found.is_runtime else "native"
    return name if can is None else f"{name}, {can.devices}"


def _gpus(built: GpuBuild) -> str:
    host = read_host()
    usable = [arch for arch in host.archs if host.driver and built.runs_on(arch, host.driver)]
    fault = built.fault(replace(host, archs=tuple(usable)) if usable else host)
    if fault:
        return f"cannot be used: {fault[0]}; {fault[1]}"
    others = [arch for arch in host.archs if arch not in usable]
    but = f"; no code for {capabilities(others)}" if others else ""
    shown = capabilities(usable)
    return f"can be used: driver {host.driver_text}, compute capability {shown}{but}"


def find_for(args: Sequence[str], flag: Path | None) -> FoundCaffe:
    """Returns the Caffe for a command line, which may ask for GPUs with ``-gpu``.

    Raises:
        CaffeNotFoundError: none is found.
    """
    if flag is not None:
        return find_caffe(flag)
    if any(word.lstrip("-").partition("=")[0] == "gpu" for word in args if word[:1] == "-"):
        return find_caffe_for_gpus()
    return find_caffe()


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
