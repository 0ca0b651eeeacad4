"""The nets of a solver: from the working folder as Caffe finds them, else from the solver's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.check.evidence import PrototxtFile
from irv2caffe.check.files import NetRole, Reading, is_file, parse_file
from irv2caffe.check.finding import WARNING, Hit
from irv2caffe.errors import FormatError, MissingInputError
from irv2caffe.proto import messages
from irv2caffe.proto.positions import scan
from irv2caffe.proto.text import read_text

if TYPE_CHECKING:
    from irv2caffe.check.finding import Place
    from irv2caffe.proto.positions import Node

NET_FIELDS = ("net", "train_net", "test_net")
NET_MARKS = ("layer", "layers", "input", "input_dim", "input_shape")
INLINE_FIELDS = ("net_param", "train_net_param", "test_net_param")


def find_nets(reading: Reading, solver_path: Path) -> None:
    """The nets a solver names or holds."""
    assert reading.solver is not None
    solver = reading.solver.message
    for name in INLINE_FIELDS:
        value = getattr(solver, name)
        held = list(value) if name.startswith("test") else [value] * solver.HasField(name)
        for place, (message, node) in enumerate(
            zip(held, reading.solver.root.all(name), strict=False)
        ):
            file = PrototxtFile(reading.solver.name, message, node)
            reading.nets.append(NetRole(file, name, place))
    num_inline = len(solver.test_net_param)
    for name in NET_FIELDS:
        written = getattr(solver, name)
        nets = [written] * solver.HasField(name) if isinstance(written, str) else list(written)
        for place, net in enumerate(nets):
            _find_net(reading, solver_path, name, net, place + num_inline)


def _find_net(reading: Reading, solver_path: Path, field_name: str, name: str, place: int) -> None:
    """Finds and reads one net."""
    assert reading.solver is not None
    at = reading.solver.at(field_name)
    found = _path_of_net(reading, solver_path, field_name, name, at)
    if found is None:
        hit = _missing(field_name, name, at)
        reading.troubles.append(("net-missing", hit))
        way_out = "run it from the folder its paths start from, or correct the path"
        reading.errors.append(MissingInputError(f"{solver_path}: {hit.what}", way_out))
        return
    shown = Path(name) if found == Path(name) else _short(found)
    file = next((role.file for role in reading.nets if role.file.name == str(shown)), None)
    if file is None:
        text = read_text(shown)
        root = scan(text)
        if looks_like_solver(root):
            hit = _solver_as_net(field_name, name, root, at)
            reading.troubles.append(("solver-as-net", hit))
            reading.errors.append(FormatError(hit.what, hit.fix, path=solver_path))
            return
        try:
            file = parse_file(text, root, shown, messages.NetParameter, is_strict=reading.is_strict)
        except FormatError as error:
            if not reading.is_strict:
                raise
            reading.errors.append(error)
            return
    reading.nets.append(NetRole(file, field_name, place))


def _path_of_net(
    reading: Reading, solver_path: Path, field_name: str, name: str, at: tuple[Place, ...]
) -> Path | None:
    """The path of a net: from the working folder as Caffe finds it, else from the solver's.

    Last come the folders above the solver's, and a file of the same name beside the solver. A
    strict reading takes neither, but the latter where the files were moved together.
    """
    beside = solver_path.absolute().parent
    neighbour = beside / Path(name).name
    if reading.is_moved:
        return neighbour if is_file(neighbour) else None
    above = () if reading.is_strict else beside.parents
    folders = [Path(), *(folder for folder in (beside, *above) if folder != Path.cwd())]
    folder = next((folder for folder in folders if is_file(folder / name)), None)
    if folder is None:
        if reading.is_strict or not is_file(neighbour):
            return None
        reading.troubles.append(("net-elsewhere", _elsewhere(field_name, name, None, at)))
        return neighbour
    if not is_file(Path(name)):
        reading.base = folder
        reading.troubles.append(("net-elsewhere", _elsewhere(field_name, name, folder, at)))
    return folder / name


def looks_like_solver(root: Node) -> bool:
    """Tells a solver from a net by its top-level fields."""
    names = {child.name for child in root.children}
    if names & set(NET_MARKS):
        return False
    return bool(names & (set(messages.SolverParameter.DESCRIPTOR.fields_by_name) - {"debug_info"}))


def _solver_as_net(field_name: str, name: str, root: Node, at: tuple[Place, ...]) -> Hit:
    """A solver in the place of a net; the net it names is probably the one that was meant."""
    inner = next((node.value for node in root.children if node.name in NET_FIELDS), "")
    return Hit(
        f"{field_name}: {name!r} is a solver, not a net",
        "Caffe stops: Failed to parse NetParameter file; nothing could be said of the net",
        f"{field_name}: {inner}, which is the net of that solver"
        if inner
        else f"{field_name}: the path of a net",
        at,
    )


def _missing(field_name: str, name: str, at: tuple[Place, ...]) -> Hit:
    return Hit(
        f"{field_name}: {name!r} is not there, neither from here nor from the solver's folder",
        'Caffe stops with "File not found"; nothing could be said of the net',
        f"mend the path in {field_name}:",
        at,
    )


def _elsewhere(field_name: str, name: str, folder: Path | None, at: tuple[Place, ...]) -> Hit:
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


def _short(path: Path) -> Path:
    """A path from here, where that is not longer."""
    relative = os.path.relpath(path)
    return Path(relative) if len(relative) < len(str(path)) else path
