"""Finds Caffe: --docker, --caffe, ``CAFFE_ROOT``, ``PATH``, or the one from install-caffe."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from irv2caffe.errors import CaffeNotFoundError, UsageError

RUNTIME_LOADER = "lib/x86_64-linux-gnu/ld-2.31.so"
DRIVER_FOLDER = "drv"  # links to the NVIDIA driver's libraries, in a build for GPUs
_IMAGE = re.compile(r"[a-z0-9][\w./:@-]*")
_TOOL_FOLDERS = ("build/tools", "bin", "usr/bin", "tools", ".")


@dataclass(frozen=True)
class FoundCaffe:
    """A Caffe, and why it was chosen.

    Attributes:
        root: source tree, install prefix or runtime folder.
        tools: folder of ``caffe``, ``convert_imageset`` and the other programs.
        is_runtime: whether install-caffe made it; it has its own loader and libraries.
        reason: where it was found.
        image: its docker image, or empty; ``root`` and ``tools`` are unused then.
    """

    root: Path
    tools: Path
    is_runtime: bool
    reason: str
    image: str = ""

    @property
    def name(self) -> str:
        """The program, for messages."""
        return f"caffe in the docker image {self.image}" if self.image else f"{self.tools}/caffe"


def default_prefix() -> Path:
    """Returns the folder that install-caffe uses by default, in the user's data folder."""
    import platformdirs

    return Path(platformdirs.user_data_dir("irv2caffe")) / "caffe-1.0"


def default_gpu_prefix() -> Path:
    """Returns the folder that install-caffe --cuda uses by default."""
    return default_prefix().with_name("caffe-1.0-cuda")


def find_caffe(flag: Path | None = None, *, docker: str | None = None) -> FoundCaffe:
    """Returns the first Caffe of ``flag``, ``CAFFE_ROOT``, ``PATH`` and the installed runtime.

    Args:
        flag: a Caffe folder (source tree, prefix or runtime) or its ``caffe`` program.
        docker: name of a docker image to use instead.

    Raises:
        CaffeNotFoundError: nothing found, or no Caffe in ``flag`` or ``CAFFE_ROOT``.
        UsageError: both ``flag`` and ``docker``, or an invalid image name.
    """
    if docker is not None:
        return _in_docker(flag, docker)
    if flag is not None:
        return _named(flag, f"--caffe {flag}")
    root = os.environ.get("CAFFE_ROOT")
    if root:
        return _named(Path(root), f"CAFFE_ROOT={root}")
    found = _on_path() or _installed()
    if found is None:
        raise CaffeNotFoundError(
            "no Caffe found: not in CAFFE_ROOT, not on PATH, none installed",
            "run: irv2caffe install-caffe",
        )
    return found


def find_same(place: Path) -> FoundCaffe | None:
    """Returns the Caffe that :func:`find_caffe` may find whose program is the one in ``place``.

    Returns None if there is none. A path from a file is untrusted: its program is compared with
    those of this user, and never run.
    """
    there = _in_folder(place, "")
    root = os.environ.get("CAFFE_ROOT")
    in_root = _in_folder(Path(root).absolute(), f"CAFFE_ROOT={root}") if root else None
    for found in filter(None, (in_root, _on_path(), _installed(), find_gpu_build())):
        with suppress(OSError):  # a program of another name
            if there is not None and (found.tools / "caffe").samefile(there.tools / "caffe"):
                return found
    return None


def _on_path() -> FoundCaffe | None:
    on_path = shutil.which("caffe")
    if not on_path:
        return None
    program = Path(on_path).resolve()
    return FoundCaffe(program.parent.parent, program.parent, False, f"on PATH at {on_path}")


def _installed() -> FoundCaffe | None:
    prefix = default_prefix()
    cpu = _in_folder(prefix, f"installed by install-caffe in {prefix}")
    return cpu or find_gpu_build()  # which computes on the CPU as well


def find_gpu_build() -> FoundCaffe | None:
    """Returns the Caffe that install-caffe --cuda installed, or None."""
    prefix = default_gpu_prefix()
    return _in_folder(prefix, f"installed by install-caffe --cuda in {prefix}")


def _in_docker(flag: Path | None, image: str) -> FoundCaffe:
    if flag is not None:
        raise UsageError("--caffe and --docker exclude each other")
    if not _IMAGE.fullmatch(image):
        raise UsageError(f"--docker {image}: not a valid image name")
    if shutil.which("docker") is None:
        raise CaffeNotFoundError(
            f"--docker {image}: the program docker is not on PATH",
            "install Docker and the NVIDIA Container Toolkit, or omit --docker",
        )
    return FoundCaffe(Path("/"), Path("/"), False, f"--docker {image}", image)


def _named(place: Path, reason: str) -> FoundCaffe:
    """Returns the Caffe at a path given by the user."""
    folder = place
    with suppress(OSError, ValueError):
        folder = place.parent if place.is_file() else place
    found = _in_folder(folder.absolute(), reason)
    if found is None:
        raise CaffeNotFoundError(
            f"{reason}: no caffe program found there",
            "give a folder made by install-caffe, a built Caffe source tree, or a caffe program",
        )
    return found


def _in_folder(folder: Path, reason: str) -> FoundCaffe | None:
    """Returns the Caffe in ``folder``, or None."""
    with suppress(OSError, ValueError):  # an invalid folder name
        if (folder / RUNTIME_LOADER).is_file() and (folder / "usr/bin/caffe").is_file():
            return FoundCaffe(folder, folder / "usr/bin", True, reason)
        for name in _TOOL_FOLDERS:
            tools = (folder / name).resolve()
            if (tools / "caffe").is_file() and os.access(tools / "caffe", os.X_OK):
                return FoundCaffe(folder, tools, False, reason)
    return None


def candidates(flag: Path | None = None) -> list[tuple[str, str]]:
    """Returns the places that :func:`find_caffe` searches, in order, and what is there."""
    root = os.environ.get("CAFFE_ROOT")
    named = {"--caffe": flag, "CAFFE_ROOT": Path(root) if root else None}
    rows = []
    for name, place in named.items():
        if place is None:
            rows.append((name, "not set"))
        else:
            folder = place.parent if place.is_file() else place
            there = _in_folder(folder.absolute(), "") is not None
            rows.append((name, str(place) if there else f"no Caffe in {place}"))
    rows.append(("PATH", shutil.which("caffe") or "no caffe"))
    prefixes = {"installed runtime": default_prefix(), "installed for GPUs": default_gpu_prefix()}
    for name, prefix in prefixes.items():
        there = _in_folder(prefix, "") is not None
        rows.append((name, str(prefix) if there else f"none in {prefix}"))
    return rows
