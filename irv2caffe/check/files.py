"""Prototxt files as they are read for the rules, and what was read so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.check.evidence import PrototxtFile
from irv2caffe.proto.positions import blank_out, unknown_fields, unknown_values
from irv2caffe.proto.text import parse_prototxt

if TYPE_CHECKING:
    from irv2caffe.check.finding import Hit
    from irv2caffe.check.inputs import SnapshotFacts
    from irv2caffe.errors import Irv2CaffeError
    from irv2caffe.proto.positions import Node


@dataclass(frozen=True)
class NetRole:
    """A net and what the solver makes of it.

    Attributes:
        file: the net.
        field: of the solver, that names or holds it; empty for a net without a solver.
        place: which of the solver's test nets it is.
    """

    file: PrototxtFile
    field: str = ""
    place: int = 0

    @property
    def role(self) -> str:
        """``train``, ``test``, or ``both`` for ``net:`` and for a net without a solver."""
        return {"tra": "train", "tes": "test"}.get(self.field[:3], "both")


@dataclass
class Reading:
    """What was read, before databases are looked at.

    Attributes:
        is_strict: read for a training: a field that Caffe does not know is an error.
        is_moved: the nets lie beside the solver, wherever it says that they are.
        solver: the solver's file, or None.
        nets: in the order of the solver.
        base: the folder that relative paths start from.
        num_gpus: what a header of ours says; 0 where there is none.
        num_train: training images, as a header of ours says.
        paths: paths of the nets, as written, and where they lead; None where nothing is there.
        blobs: shapes of mean images and infogain matrices by path as written; None for a file that
            is no BlobProto.
        snapshots: where they go.
        troubles: what was found on the way: rule name and hit.
        errors: of nets that cannot be read, where reading is strict.
    """

    is_strict: bool = False
    is_moved: bool = False
    solver: PrototxtFile | None = None
    nets: list[NetRole] = field(default_factory=list)
    base: Path = field(default_factory=Path)
    num_gpus: int = 0
    num_train: int | None = None
    paths: dict[str, Path | None] = field(default_factory=dict)
    blobs: dict[str, tuple[int, ...] | None] = field(default_factory=dict)
    snapshots: SnapshotFacts | None = None
    troubles: list[tuple[str, Hit]] = field(default_factory=list)
    errors: list[Irv2CaffeError] = field(default_factory=list)


def parse_file(
    text: str, root: Node, path: Path, cls: Any, *, is_strict: bool = False
) -> PrototxtFile:
    """Parses a prototxt without the fields and values that no Caffe of ours knows; lists those.

    Raises:
        FormatError: it is no such prototxt, or where ``is_strict`` it has such fields or values.
    """
    if is_strict:
        return PrototxtFile(str(path), parse_prototxt(text, cls, path=path), root)
    unknown = tuple(unknown_fields(root, cls.DESCRIPTOR))
    values = tuple(unknown_values(root, cls.DESCRIPTOR))
    known = blank_out(text, (each.node for each in (*unknown, *values)))
    message = parse_prototxt(known, cls, path=path)
    return PrototxtFile(str(path), message, root, unknown, values)


def exists(path: Path) -> bool:
    """Whether something is there; a name that no file can have is nothing."""
    try:
        return path.exists()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether a file is there."""
    return exists(path) and path.is_file()
