"""Facts about a solver's snapshot folder, and other files and solvers with the same prefix."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.check.files import exists
from irv2caffe.check.inputs import SnapshotFacts
from irv2caffe.proto.positions import scan

if TYPE_CHECKING:
    from irv2caffe.check.files import Reading
    from irv2caffe.proto.positions import Node

_MAX_NEIGHBOUR_BYTES = 1 << 16
_INLINE = ("net_param", "train_net_param")


def snapshot_facts(reading: Reading, solver_path: Path) -> SnapshotFacts | None:
    """Facts about the ``snapshot_prefix`` of a solver; None if it has none."""
    assert reading.solver is not None
    prefix = str(reading.solver.message.snapshot_prefix)
    if not prefix or "\0" in prefix:
        return None
    full = reading.base / prefix
    folder = full.parent
    try:
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    except OSError:
        names = []
    shared, alternatives = _neighbours(solver_path, reading.solver.message)
    ending = re.compile(re.escape(full.name) + r"_iter_\d+\.(?:caffemodel|solverstate)(?:\.h5)?")
    return SnapshotFacts(
        folder=str(Path(prefix).parent),
        is_there=exists(folder) and folder.is_dir(),
        is_writable=_is_writable(folder),
        existing=tuple(sorted(name for name in names if ending.fullmatch(name))),
        shared_with=shared,
        alternatives=alternatives,
    )


def _is_writable(folder: Path) -> bool:
    """Whether a file can be created; permissions alone are not enough, as for root."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _neighbours(solver_path: Path, solver: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Other solvers in the folder with the same prefix: those of other nets, those of this net.

    A solver of the same net and another length continues this run, or this one continues it, as in
    Caffe's own examples (cifar10_quick_solver and cifar10_quick_solver_lr1): it is not listed.
    """
    own = solver.net or solver.train_net
    own_inside = any(map(solver.HasField, _INLINE))
    others: list[str] = []
    alternatives: list[str] = []
    for path in sorted(solver_path.absolute().parent.glob("*.prototxt")):
        root = _fields(path, solver_path)
        if root is None or _value(root, "snapshot_prefix") != solver.snapshot_prefix:
            continue
        net = _value(root, "net") or _value(root, "train_net")
        is_inside = own_inside or any(root.all(name) for name in _INLINE)
        if net != own and not is_inside:  # a net inside of a solver cannot be compared
            others.append(path.name)
        elif _value(root, "max_iter") == str(solver.max_iter):
            alternatives.append(path.name)
    return tuple(others), tuple(alternatives)


def _fields(path: Path, except_for: Path) -> Node | None:
    """The fields of a small file; None for another file or ``except_for``."""
    try:
        if not path.is_file() or path.samefile(except_for):
            return None
        if path.stat().st_size > _MAX_NEIGHBOUR_BYTES:
            return None
        return scan(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _value(root: Node, name: str) -> str:
    """The value of a field as it is written, without quotes."""
    nodes = root.all(name)
    return nodes[-1].value.strip("\"'") if nodes else ""
