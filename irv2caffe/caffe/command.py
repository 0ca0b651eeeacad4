"""Command lines and environments of Caffe's programs."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.caffe.docker import Container, docker_argv
from irv2caffe.caffe.driver import driver_libraries, link_driver
from irv2caffe.caffe.find import DRIVER_FOLDER, RUNTIME_LOADER, FoundCaffe
from irv2caffe.errors import CaffeNotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_RUNTIME_LIBRARIES = (
    "usr/lib/x86_64-linux-gnu/openblas-pthread",  # libblas.so.3 and liblapack.so.3
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib",
)
_CUDA_LIBRARIES = "cuda/lib"
_RUNTIME_PYTHON = "python3.9"
# Variables that would make the runtime load libraries or modules of the host.
_HOST_VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE")


@dataclass(frozen=True)
class Command:
    """The argument list and environment of a program.

    Attributes:
        argv: the program and its arguments.
        env: the whole environment.
        container: name of its docker container, or empty.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    container: str = ""


def tool_command(
    found: FoundCaffe,
    tool: str = "caffe",
    args: Sequence[str] = (),
    *,
    container: Container | None = None,
) -> Command:
    """Returns the command that runs a program of Caffe.

    Args:
        found: the Caffe, from :func:`irv2caffe.caffe.find.find_caffe`.
        tool: ``caffe``, ``convert_imageset``, ``compute_image_mean``, ``extract_features``, any
            other program in the same folder, or ``python`` for an interpreter that imports
            its pycaffe.
        args: arguments of the program.
        container: what a docker container may access; None for nothing.

    Raises:
        UsageError: ``tool`` is a path, not a name.
        CaffeNotFoundError: this Caffe has no such program.
    """
    if not tool or "/" in tool or tool.startswith("."):
        raise UsageError(f"--tool {tool}: expected the name of a Caffe program, not a path")
    if found.image:
        container = container or Container()
        argv = docker_argv(found.image, (tool, *args), container)
        return Command(argv, dict(os.environ), container.name)
    if found.is_runtime:
        return _runtime_command(found, tool, args)
    return _native_command(found, tool, args)


def _runtime_command(found: FoundCaffe, tool: str, args: Sequence[str]) -> Command:
    """Runs a program with the runtime's own loader, without libraries of the host."""
    env = {key: value for key, value in os.environ.items() if key not in _HOST_VARIABLES}
    if tool == "python":
        tool = _RUNTIME_PYTHON
        env["PYTHONHOME"] = str(found.root / "usr")
        env["PYTHONPATH"] = str(found.root / "usr/lib/python3/dist-packages")
        env["PYTHONNOUSERSITE"] = "1"
    program = found.tools / tool
    if not program.is_file():
        raise _no_such_tool(found, tool)
    folders: tuple[str, ...] = _RUNTIME_LIBRARIES
    if (found.root / _CUDA_LIBRARIES).is_dir():
        # Looked up at every start: the driver may be updated, or the folder shared by machines.
        link_driver(found.root / DRIVER_FOLDER, driver_libraries())
        folders = (*folders, _CUDA_LIBRARIES, DRIVER_FOLDER)
    libraries = ":".join(str(found.root / folder) for folder in folders)
    loader = str(found.root / RUNTIME_LOADER)
    return Command((loader, "--library-path", libraries, str(program), *args), env)


def _native_command(found: FoundCaffe, tool: str, args: Sequence[str]) -> Command:
    """Runs a program directly; python gets the pycaffe of the source tree."""
    env = dict(os.environ)
    if tool == "python":
        pycaffe = str(found.root / "python")
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (pycaffe, env.get("PYTHONPATH"))))
        interpreter = shutil.which("python3")
        if interpreter is None:
            raise _no_such_tool(found, tool)
        return Command((interpreter, *args), env)
    # In built source trees some programs are links to files with the suffix .bin.
    for name in (tool, f"{tool}.bin"):
        program = Path(found.tools) / name
        if program.is_file():
            return Command((str(program), *args), env)
    raise _no_such_tool(found, tool)


def _no_such_tool(found: FoundCaffe, tool: str) -> CaffeNotFoundError:
    if tool.startswith("python") and found.is_runtime:
        return CaffeNotFoundError(
            f"the Caffe in {found.root} was installed without pycaffe",
            "run: irv2caffe install-caffe --force",
        )
    names = sorted(path.name for path in found.tools.iterdir() if "caffe" in path.name)
    shown = ", ".join([*names[:8], "convert_imageset", "compute_image_mean", "extract_features"])
    return CaffeNotFoundError(
        f"the Caffe in {found.root} has no program {tool!r}", f"its programs include {shown}"
    )
