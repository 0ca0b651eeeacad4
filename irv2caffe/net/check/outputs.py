"""Where the snapshots of a run will lie, and what lies there already."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.net.check.facts import SnapshotFacts
from irv2caffe.proto.positions import scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.net.check.files import Reading

_MAX_NEIGHBOUR_BYTES = 1 << 16


def snapshot_facts(reading: Reading, solver_path: Path) -> SnapshotFacts | None:
    """Where the snapshots of a solver will lie."""
    assert reading.solver is not None
    prefix = str(reading.solver.message.snapshot_prefix)
    if not prefix or "\0" in prefix:
        return None
    full = reading.base / prefix
    folder = full.parent
    try:
        made = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    except OSError:
        made = []
    ending = re.compile(re.escape(full.name) + r"_iter_\d+\.(?:caffemodel|solverstate)(?:\.h5)?")
    return SnapshotFacts(
        folder=str(Path(prefix).parent),
        is_there=folder.is_dir(),
        is_writable=_is_writable(folder),
        existing=tuple(sorted(name for name in made if ending.fullmatch(name))),
        shared_with=tuple(_neighbours(solver_path, prefix)),
    )


def _is_writable(folder: Path) -> bool:
    """Whether a file can be made; asking for permissions says yes to root everywhere."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _neighbours(solver_path: Path, prefix: str) -> Iterator[str]:
    """Other solvers in the same folder that would write the same snapshots."""
    for path in sorted(solver_path.absolute().parent.glob("*.prototxt")):
        try:
            if not path.is_file() or path.samefile(solver_path):
                continue
            if path.stat().st_size > _MAX_NEIGHBOUR_BYTES:
                continue
            root = scan(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
        if any(node.value.strip("\"'") == prefix for node in root.all("snapshot_prefix")):
            yield path.name
