"""Parses prototxt files for rules; Reading holds the files of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.check.evidence import PrototxtFile
from irv2caffe.proto.positions import blank_out, unknown_fields, unknown_values
from irv2caffe.proto.text import parse_prototxt

if TYPE_CHECKING:
    from irv2caffe.check.finding import Hit
    from irv2caffe.check.inputs import BlobFacts, SnapshotFacts
    from irv2caffe.errors import Irv2CaffeError
    from irv2caffe.proto.positions import Node


@dataclass(frozen=True)
class NetRole:
    """A net and what the solver uses it for.

    Attributes:
        file: the net.
        role: ``both`` for ``net:`` and for a net without a solver, else ``train`` or ``test``.
        place: its index among the solver's test nets.
        field: the solver's field that names or holds it; empty for a net without a solver.
    """

    file: PrototxtFile
    role: str
    place: int = 0
    field: str = ""


@dataclass
class Reading:
    """Files of a run.

    Attributes:
        is_strict: for a training, a field that Caffe does not know is an error.
        is_moved: the nets are read beside the solver, whatever folder it names.
        solver: the solver's file, or None.
        nets: in the order of the solver.
        base: the folder that relative paths start from.
        num_gpus: from the header that build-net writes; 0 without one.
        num_train: training images, from the same header.
        paths: paths in the nets, as written, and the files found; None if missing.
        blobs: facts on mean images and infogain matrices by path as written; None for a file that
            is no BlobProto.
        snapshots: facts about the snapshot folder.
        troubles: hits found while files were read: rule name and hit.
        errors: errors of nets that cannot be read, if reading is strict.
    """

    is_strict: bool = False
    is_moved: bool = False
    solver: PrototxtFile | None = None
    nets: list[NetRole] = field(default_factory=list)
    base: Path = field(default_factory=Path)
    num_gpus: int = 0
    num_train: int | None = None
    paths: dict[str, Path | None] = field(default_factory=dict)
    blobs: dict[str, BlobFacts | None] = field(default_factory=dict)
    snapshots: SnapshotFacts | None = None
    troubles: list[tuple[str, Hit]] = field(default_factory=list)
    errors: list[Irv2CaffeError] = field(default_factory=list)


def parse_file(
    text: str, root: Node, path: Path, cls: Any, *, is_strict: bool = False
) -> PrototxtFile:
    """Parses a prototxt without unknown fields and values, which are returned separately.

    Raises:
        FormatError: not such a prototxt; with ``is_strict`` also for unknown fields.
    """
    if is_strict:
        return PrototxtFile(str(path), parse_prototxt(text, cls, path=path), root)
    unknown = tuple(unknown_fields(root, cls.DESCRIPTOR))
    values = tuple(unknown_values(root, cls.DESCRIPTOR))
    known = blank_out(text, (each.node for each in (*unknown, *values)))
    message = parse_prototxt(known, cls, path=path)
    return PrototxtFile(str(path), message, root, unknown, values)


def exists(path: Path) -> bool:
    """Whether a path exists; False for a name that no file can have."""
    try:
        return path.exists()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether a path is a file; False for a name that no file can have."""
    return exists(path) and path.is_file()
