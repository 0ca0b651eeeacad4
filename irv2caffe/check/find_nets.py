"""Finds the nets of a solver, from the working folder as Caffe does, else from the solver's."""

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

NET_MARKS = ("layer", "layers", "input", "input_dim", "input_shape")
# Fields of a solver that hold or name nets, with the role of the net.
INLINE_ROLES = {"net_param": "both", "train_net_param": "train", "test_net_param": "test"}
NET_ROLES = {"net": "both", "train_net": "train", "test_net": "test"}


def find_nets(reading: Reading, solver_path: Path) -> None:
    """Adds the nets that the solver names or holds to ``reading``."""
    assert reading.solver is not None
    file, solver = reading.solver, reading.solver.message
    for name, role in INLINE_ROLES.items():
        value = getattr(solver, name)
        nets = list(value) if role == "test" else [value] * solver.HasField(name)
        for place, (net, node) in enumerate(zip(nets, file.root.all(name), strict=False)):
            inline = PrototxtFile(file.name, net, node)
            reading.nets.append(NetRole(inline, role, place, name))
    for name, role in NET_ROLES.items():
        value = getattr(solver, name)
        paths = list(value) if role == "test" else [value] * solver.HasField(name)
        for place, path in enumerate(paths, len(solver.test_net_param)):
            _find_net(reading, solver_path, name, path, place)


def _find_net(reading: Reading, solver_path: Path, field_name: str, name: str, place: int) -> None:
    """Adds the net that a field of the solver names, or the error that prevents it."""
    shown = _locate_net(reading, solver_path, field_name, name)
    if shown is None:
        return
    known = next((net.file for net in reading.nets if net.file.name == str(shown)), None)
    if known is not None:
        reading.nets.append(NetRole(known, NET_ROLES[field_name], place, field_name))
        return
    text = read_text(shown)
    root = scan(text)
    if looks_like_solver(root):
        inner = next((node.value for node in root.children if node.name in NET_ROLES), "")
        hit = Hit(
            what=f"{field_name}: {name!r} is a solver, not a net",
            why="Caffe stops: Failed to parse NetParameter file; the net was not checked",
            fix=f"{field_name}: {inner}, which is the net of that solver"
            if inner
            else f"{field_name}: the path of a net",
            at=_place_of(reading, field_name),
        )
        reading.troubles.append(("solver-as-net", hit))
        reading.errors.append(FormatError(hit.what, hit.fix, path=solver_path))
        return
    try:
        file = parse_file(text, root, shown, messages.NetParameter, is_strict=reading.is_strict)
        reading.nets.append(NetRole(file, NET_ROLES[field_name], place, field_name))
    except FormatError as error:
        if not reading.is_strict:
            raise
        reading.errors.append(error)


def _locate_net(reading: Reading, solver_path: Path, field_name: str, name: str) -> Path | None:
    """The path of a net's file; None if it is missing, which is added to the errors."""
    at = _place_of(reading, field_name)
    beside = solver_path.absolute().parent
    above = () if reading.is_strict else beside.parents
    folders = [Path(), *(folder for folder in (beside, *above) if folder != Path.cwd())]
    folder = next((each for each in folders if is_file(each / name)), None)
    found = beside / Path(name).name if folder is None else folder / name
    if reading.is_moved:
        folder, found = None, beside / Path(name).name
    if not is_file(found) or (folder is None and reading.is_strict and not reading.is_moved):
        hit = Hit(
            what=f"{field_name}: {name!r} does not exist, neither from here nor from the solver's "
            "folder",
            why='Caffe stops with "File not found"; the net was not checked',
            fix=f"correct the path in {field_name}:",
            at=at,
        )
        reading.troubles.append(("net-missing", hit))
        hint = "run it from the folder its paths start from, or correct the path"
        reading.errors.append(MissingInputError(f"{solver_path}: {hit.what}", hint))
        return None
    if folder is None:
        hit = Hit(
            what=f"{field_name}: {name!r} does not exist; the file of that name beside the solver "
            "was used",
            why="Caffe opens the path as it is written",
            fix=f"correct the path in {field_name}:",
            at=at,
            severity=WARNING,
        )
        reading.troubles.append(("net-elsewhere", hit))
    elif folder != Path():
        reading.base = folder
        hit = Hit(
            what=f"{field_name}: {name!r} is found from {_shorter(folder)}, not from here",
            why="Caffe opens relative paths from the folder it is started in, not from the "
            "solver's; the same goes for sources, mean files and snapshot_prefix",
            fix=f"start Caffe in {_shorter(folder)}; irv2caffe train runs from any folder",
            at=at,
        )
        reading.troubles.append(("net-elsewhere", hit))
    return found if folder == Path() else _shorter(found)


def _place_of(reading: Reading, field_name: str) -> tuple[Place, ...]:
    assert reading.solver is not None
    return reading.solver.at(field_name)


def looks_like_solver(root: Node) -> bool:
    """Whether the top-level fields of a prototxt are those of a solver."""
    names = {child.name for child in root.children}
    if names & set(NET_MARKS):
        return False
    return bool(names & (set(messages.SolverParameter.DESCRIPTOR.fields_by_name) - {"debug_info"}))


def _shorter(path: Path) -> Path:
    """A path relative to the working folder, if that is not longer."""
    relative = os.path.relpath(path)
    return Path(relative) if len(relative) < len(str(path)) else path
