"""Which Caffe: a docker image, the flag, ``CAFFE_ROOT``, ``PATH``, or install-caffe's runtime."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from irv2caffe.errors import CaffeNotFoundError, UsageError

RUNTIME_LOADER = "lib/x86_64-linux-gnu/ld-2.31.so"
_IMAGE = re.compile(r"[a-z0-9][\w./:@-]*")
_TOOL_FOLDERS = ("build/tools", "bin", "usr/bin", "tools", ".")


@dataclass(frozen=True)
class FoundCaffe:
    """A Caffe and the reason why it was taken.

    Attributes:
        root: the source tree, install prefix or runtime folder.
        tools: the folder that holds ``caffe``, ``convert_imageset`` and so on.
        is_runtime: made by install-caffe; runs through its own loader and libraries.
        reason: where it was found, as one phrase.
        image: of docker that holds it, or empty; ``root`` and ``tools`` mean nothing then.
    """

    root: Path
    tools: Path
    is_runtime: bool
    reason: str
    image: str = ""

    @property
    def name(self) -> str:
        """The program, for people."""
        return f"caffe in the docker image {self.image}" if self.image else f"{self.tools}/caffe"


def default_prefix() -> Path:
    """Returns the folder that install-caffe uses by default, in the user's data folder."""
    import platformdirs

    return Path(platformdirs.user_data_dir("irv2caffe")) / "caffe-1.0"


def find_caffe(flag: Path | None = None, *, docker: str | None = None) -> FoundCaffe:
    """The Caffe to run: the first of flag, ``CAFFE_ROOT``, ``PATH`` and the installed runtime.

    Args:
        flag: a Caffe folder (source tree, prefix or runtime) or its ``caffe`` program.
        docker: an image whose ``caffe`` is taken instead.

    Raises:
        CaffeNotFoundError: nothing found, or the flag or ``CAFFE_ROOT`` points at no Caffe.
        UsageError: flag and image, or no name of an image.
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
    """The Caffe of this user's own finding whose program is the one at a place, or None.

    A place that a file names may be anybody's: its program is compared, and never taken itself.
    """
    there = _in_folder(place, "")
    root = os.environ.get("CAFFE_ROOT")
    in_root = _in_folder(Path(root).absolute(), f"CAFFE_ROOT={root}") if root else None
    for found in filter(None, (in_root, _on_path(), _installed())):
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
    return _in_folder(prefix, f"installed by install-caffe in {prefix}")


def _in_docker(flag: Path | None, image: str) -> FoundCaffe:
    if flag is not None:
        raise UsageError("--caffe and --docker: one or the other")
    if not _IMAGE.fullmatch(image):
        raise UsageError(f"--docker takes the name of an image, not {image!r}")
    if shutil.which("docker") is None:
        raise CaffeNotFoundError(
            f"--docker {image}: there is no docker program on PATH",
            "install Docker and the NVIDIA Container Toolkit, or leave --docker out",
        )
    return FoundCaffe(Path("/"), Path("/"), False, f"--docker {image}", image)


def _named(place: Path, reason: str) -> FoundCaffe:
    """The Caffe at a place that the user named."""
    folder = place
    with suppress(OSError, ValueError):
        folder = place.parent if place.is_file() else place
    found = _in_folder(folder.absolute(), reason)
    if found is None:
        raise CaffeNotFoundError(
            f"{reason}: there is no caffe program",
            "give a folder made by install-caffe, a built Caffe source tree, or a caffe program",
        )
    return found


def _in_folder(folder: Path, reason: str) -> FoundCaffe | None:
    """The Caffe below ``folder``, or None."""
    with suppress(OSError, ValueError):  # of a name that no folder can have
        if (folder / RUNTIME_LOADER).is_file() and (folder / "usr/bin/caffe").is_file():
            return FoundCaffe(folder, folder / "usr/bin", True, reason)
        for name in _TOOL_FOLDERS:
            tools = (folder / name).resolve()
            if (tools / "caffe").is_file() and os.access(tools / "caffe", os.X_OK):
                return FoundCaffe(folder, tools, False, reason)
    return None


def candidates(flag: Path | None = None) -> list[tuple[str, str]]:
    """All places that :func:`find_caffe` looks at, in its order, and what is there."""
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
    prefix = default_prefix()
    there = _in_folder(prefix, "") is not None
    rows.append(("installed runtime", str(prefix) if there else f"none in {prefix}"))
    return rows
