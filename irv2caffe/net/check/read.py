"""From a solver or net on disk to what rules look at; finds files as Caffe would, and else near."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import FormatError, Irv2CaffeError
from irv2caffe.net.check.evidence import PrototxtFile, SnapshotFacts
from irv2caffe.net.check.finding import WARNING, Hit
from irv2caffe.proto import messages
from irv2caffe.proto.files import read_array, read_binary
from irv2caffe.proto.positions import blank_out, scan, unknown_fields
from irv2caffe.proto.text import parse_prototxt, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.proto.positions import Node

_NET_MARKS = ("layer", "layers", "input", "input_dim", "input_shape")
_NET_FIELDS = ("net", "train_net", "test_net")
_INLINE_FIELDS = ("net_param", "train_net_param", "test_net_param")
_PATH_FIELDS = (
    ("data_param", "source"),
    ("data_param", "mean_file"),
    ("image_data_param", "source"),
    ("image_data_param", "root_folder"),
    ("image_data_param", "mean_file"),
    ("hdf5_data_param", "source"),
    ("window_data_param", "source"),
    ("infogain_loss_param", "source"),
    ("transform_param", "mean_file"),
)
_BLOB_FIELDS = tuple(each for each in _PATH_FIELDS if each[1] == "mean_file" or "gain" in each[0])
_HEADER = re.compile(
    r"^# effective batch .* x (\d{1,4}) GPU\(s\).*\n# ([\d,]{1,15}) training images", re.MULTILINE
)
_MAX_NEIGHBOUR_BYTES = 1 << 16


@dataclass(frozen=True)
class NetRole:
    """A net and what the solver makes of it.

    Attributes:
        file: the net.
        role: ``both`` for ``net:`` and for a net without a solver, else ``train`` or ``test``.
        place: which of the solver's test nets it is.
    """

    file: PrototxtFile
    role: str
    place: int = 0


@dataclass
class Reading:
    """What was read, before databases are looked at.

    Attributes:
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
    """

    solver: PrototxtFile | None = None
    nets: list[NetRole] = field(default_factory=list)
    base: Path = field(default_factory=Path)
    num_gpus: int = 0
    num_train: int | None = None
    paths: dict[str, Path | None] = field(default_factory=dict)
    blobs: dict[str, tuple[int, ...] | None] = field(default_factory=dict)
    snapshots: SnapshotFacts | None = None
    troubles: list[tuple[str, Hit]] = field(default_factory=list)


def read(path: Path) -> Reading:
    """Reads a solver with its nets, or a net.

    Raises:
        MissingInputError: no such file.
        FormatError: a file that is not a prototxt, or neither solver nor net.
    """
    text = read_text(path)
    root = scan(text)
    reading = Reading()
    if _is_solver(root, path):
        reading.solver = _file(text, root, path, messages.SolverParameter)
        said = _HEADER.search(text[:4096])
        if said:
            reading.num_gpus = int(said.group(1))
            reading.num_train = int(said.group(2).replace(",", ""))
        _find_nets(reading, path)
        reading.snapshots = _snapshots(reading, path)
    else:
        reading.nets.append(NetRole(_file(text, root, path, messages.NetParameter), "both"))
        beside = path.absolute().parent
        reading.base = next(
            (
                folder
                for folder in (Path(), beside, *beside.parents)
                if any(_exists(folder / name) for name in _written_paths(reading))
            ),
            Path(),
        )
    for name in _written_paths(reading):
        found = reading.base / name
        reading.paths[name] = found if _exists(found) else None
    for name in _written_paths(reading, _BLOB_FIELDS):
        where = reading.paths[name]
        if where is not None and where.is_file():
            reading.blobs[name] = _blob_shape(where)
    return reading


def _blob_shape(path: Path) -> tuple[int, ...] | None:
    """The shape of a .binaryproto."""
    try:
        return tuple(read_array(read_binary(path, messages.BlobProto)).shape)
    except Irv2CaffeError:
        return None


def _is_solver(root: Node, path: Path) -> bool:
    """Tells a solver from a net by its top-level fields.

    Raises:
        FormatError: it is neither.
    """
    names = {child.name for child in root.children}
    if names & set(_NET_MARKS):
        return False
    solver = names & set(messages.SolverParameter.DESCRIPTOR.fields_by_name)
    if solver - {"debug_info"}:
        return True
    hint = "give the solver.prototxt, or the net it names"
    raise FormatError("neither a solver nor a net", hint, path=path)


def _file(text: str, root: Node, path: Path, cls: Any) -> PrototxtFile:
    """A prototxt without the fields that no Caffe of ours knows; those are listed."""
    unknown = tuple(unknown_fields(root, cls.DESCRIPTOR))
    known = blank_out(text, (each.node for each in unknown))
    return PrototxtFile(str(path), parse_prototxt(known, cls, path=path), root, unknown)


def _find_nets(reading: Reading, solver_path: Path) -> None:
    """The nets a solver names or holds."""
    assert reading.solver is not None
    solver = reading.solver.message
    for name in _INLINE_FIELDS:
        value = getattr(solver, name)
        held = list(value) if name.startswith("test") else [value] * solver.HasField(name)
        for place, (message, node) in enumerate(
            zip(held, reading.solver.root.all(name), strict=False)
        ):
            file = PrototxtFile(reading.solver.name, message, node)
            reading.nets.append(NetRole(file, _role(name), place))
    num_inline = len(solver.test_net_param)
    for name in _NET_FIELDS:
        written = getattr(solver, name)
        for place, net in enumerate([written] if isinstance(written, str) else list(written)):
            if net:
                _find_net(reading, solver_path, name, net, place + num_inline)


def _role(field_name: str) -> str:
    return {"tra": "train", "tes": "test"}.get(field_name[:3], "both")


def _find_net(reading: Reading, solver_path: Path, field_name: str, name: str, place: int) -> None:
    """One net: from the working folder as Caffe finds it, else from the solver's or above it."""
    assert reading.solver is not None
    at = reading.solver.at(field_name)
    beside = solver_path.absolute().parent
    folders = [Path(), *(folder for folder in (beside, *beside.parents) if folder != Path.cwd())]
    found = next((folder / name for folder in folders if _is_file(folder / name)), None)
    if found is None and _is_file(beside / Path(name).name):
        found = beside / Path(name).name
        reading.troubles.append(("net-elsewhere", _elsewhere(field_name, name, None, at)))
    elif found is None:
        reading.troubles.append(("net-missing", _missing(field_name, name, at)))
        return
    elif not _is_file(Path(name)):
        reading.base = next(folder for folder in folders if _is_file(folder / name))
        reading.troubles.append(("net-elsewhere", _elsewhere(field_name, name, reading.base, at)))
    shown = Path(name) if found == Path(name) else _short(found)
    text = read_text(shown)
    file = _file(text, scan(text), shown, messages.NetParameter)
    reading.nets.append(NetRole(file, _role(field_name), place))


def _exists(path: Path) -> bool:
    """Whether something is there; a name that no file can have is nothing."""
    try:
        return path.exists()
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    return _exists(path) and path.is_file()


def _short(path: Path) -> Path:
    """A path from here, where that is not longer."""
    relative = os.path.relpath(path)
    return Path(relative) if len(relative) < len(str(path)) else path


def _missing(field_name: str, name: str, at: Any) -> Hit:
    return Hit(
        f"{field_name}: {name!r} is not there, neither from here nor from the solver's folder",
        'Caffe stops with "File not found"; nothing could be said of the net',
        f"mend the path in {field_name}:",
        at,
    )


def _elsewhere(field_name: str, name: str, folder: Path | None, at: Any) -> Hit:
    if folder is None:
        return Hit(
            f"{field_name}: {name!r} is not there; the file of that name beside the solver was "
            "taken",
            "Caffe opens the path as it is written",
            f"mend the path in {field_name}:",
            at,
            WARNING,
        )
    return Hit(
        f"{field_name}: {name!r} is found from {_short(folder)}, not from here",
        "Caffe opens relative paths from the folder it is started in, not from the solver's; the "
        "same goes for sources, mean files and snapshot_prefix",
        f"start Caffe in {_short(folder)}; irv2caffe train does without",
        at,
    )


def _written_paths(
    reading: Reading, fields: tuple[tuple[str, str], ...] = _PATH_FIELDS
) -> Iterator[str]:
    """Paths in the layers of the nets, each once."""
    seen: set[str] = set()
    for net in reading.nets:
        for layer in [*net.file.message.layer, *net.file.message.layers]:
            for param, name in fields:
                if param not in layer.DESCRIPTOR.fields_by_name or not layer.HasField(param):
                    continue
                written = str(getattr(getattr(layer, param), name))
                if written and "\0" not in written and written not in seen:
                    seen.add(written)
                    yield written


def _snapshots(reading: Reading, solver_path: Path) -> SnapshotFacts | None:
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
            if path.samefile(solver_path) or path.stat().st_size > _MAX_NEIGHBOUR_BYTES:
                continue
            root = scan(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
        if any(node.value.strip("\"'") == prefix for node in root.all("snapshot_prefix")):
            yield path.name
