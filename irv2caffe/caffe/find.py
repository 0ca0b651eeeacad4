"""Which Caffe: the flag, ``CAFFE_ROOT``, ``PATH``, or the runtime that install-caffe made."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from irv2caffe.errors import CaffeNotFoundError
from irv2caffe.system import data_dir

RUNTIME_LOADER = "lib/x86_64-linux-gnu/ld-2.31.so"
_TOOL_FOLDERS = ("build/tools", "bin", "usr/bin", "tools", ".")


@dataclass(frozen=True)
class FoundCaffe:
    """A Caffe and the reason why it was taken.

    Attributes:
        root: the source tree, install prefix or runtime folder.
        tools: the folder that holds ``caffe``, ``convert_imageset`` and so on.
        is_runtime: made by install-caffe; runs through its own loader and libraries.
        reason: where it was found, as one phrase.
    """

    root: Path
    tools: Path
    is_runtime: bool
    reason: str


def default_prefix() -> Path:
    """Where install-caffe puts Caffe when it is not told otherwise."""
    return data_dir() / "caffe-1.0"


def find_caffe(flag: Path | None = None) -> FoundCaffe:
    """The Caffe to run: the first of flag, ``CAFFE_ROOT``, ``PATH`` and the installed runtime.

    Args:
        flag: a Caffe folder (source tree, prefix or runtime) or its ``caffe`` program.

    Raises:
        CaffeNotFoundError: nothing found, or the flag or ``CAFFE_ROOT`` points at no Caffe.
    """
    if flag is not None:
        return _named(flag, f"--caffe {flag}")
    root = os.environ.get("CAFFE_ROOT")
    if root:
        return _named(Path(root), f"CAFFE_ROOT={root}")
    on_path = shutil.which("caffe")
    if on_path:
        program = Path(on_path).resolve()
        return FoundCaffe(program.parent.parent, program.parent, False, f"on PATH at {on_path}")
    prefix = default_prefix()
    found = _in_folder(prefix, f"installed by install-caffe in {prefix}")
    if found is None:
        raise CaffeNotFoundError(
            "no Caffe found: not in CAFFE_ROOT, not on PATH, none installed",
            "run: irv2caffe install-caffe",
        )
    return found


def _named(place: Path, reason: str) -> FoundCaffe:
    """The Caffe at a place that the user named."""
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
