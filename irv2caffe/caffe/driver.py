"""The driver's libraries of the host, for a Caffe that runs with its own loader and C library.

The CUDA run time opens ``libcuda.so.1`` by name. Only the needed libraries are put on the loader's
path, as links in a folder of their own: the host's library folder holds a C library as well, which
must not be mixed with Caffe's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The driver itself, its two compilers of PTX, and NVML, which NCCL uses.
LIBRARIES = (
    "libcuda.so.1",
    "libnvidia-ptxjitcompiler.so.1",
    "libnvidia-nvvm.so.4",
    "libnvidia-ml.so.1",
    "libdxcore.so",  # of WSL
)
_FOLDERS = (
    "/usr/lib/wsl/lib",  # WSL, whose other libcuda.so.1 is a stub
    "/usr/local/nvidia/lib64",  # containers of Kubernetes
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/run/opengl-driver/lib",  # NixOS
)
_TIMEOUT_S = 30


def link_driver(folder: Path, found: Mapping[str, Path]) -> None:
    """Makes ``folder`` hold links to these libraries and nothing else, if it can be written."""
    links = {path.name: path.readlink() for path in _links(folder)}
    if links == dict(found):
        return
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        for name in links.keys() - found.keys():
            (folder / name).unlink()
        for name, target in found.items():
            aside = folder / f".partial-{name}-{os.getpid()}"
            aside.symlink_to(target)
            aside.replace(folder / name)


def _links(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_symlink()]
    except OSError:
        return []


def driver_libraries(folders: Iterable[str] | None = None) -> dict[str, Path]:
    """Returns the host's libraries of :data:`LIBRARIES`, with their paths.

    Args:
        folders: where to search, in this order; by default the usual folders, the loader's cache
            and ``LD_LIBRARY_PATH``.
    """
    known = {} if folders is not None else _loader_cache()
    if folders is None:
        told = os.environ.get("LD_LIBRARY_PATH", "").split(":")
        folders = [*_FOLDERS, *filter(os.path.isabs, told)]
    found = {}
    for name in LIBRARIES:
        places = [Path(folder) / name for folder in folders]
        if name in known:
            places.append(known[name])
        for place in places:
            if _is_64_bit(place):
                found[name] = place
                break
    return found


def _is_64_bit(path: Path) -> bool:
    """Returns whether a file begins like an ELF library for x86-64 programs."""
    try:
        with path.open("rb") as stream:
            return stream.read(5) == b"\x7fELF\x02"
    except OSError:
        return False


def _loader_cache() -> dict[str, Path]:
    """Returns the libraries of the host's loader cache, by name."""
    program = shutil.which("ldconfig") or "/sbin/ldconfig"
    try:
        done = subprocess.run(
            [program, "-p"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    known: dict[str, Path] = {}
    for line in done.stdout.splitlines():
        name, arrow, path = line.strip().partition(" => ")
        if arrow and "x86-64" in name:
            known.setdefault(name.split()[0], Path(path))
    return known
