"""The nets of a solver: from the working folder as Caffe finds them, else from the solver's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.check.evidence import PrototxtFile
from irv2caffe.check.files import NetRole, Reading, is_file, parse_file
from irv2caffe.check.finding import WARNING, Hit
from irv2caffe.proto import messages
from irv2caffe.proto.positions import scan
from irv2caffe.proto.text import read_text

if TYPE_CHECKING:
    from irv2caffe.check.finding import Place
    from irv2caffe.proto.positions import Node

_NET_FIELDS = ("net", "train_net", "test_net")
NET_MARKS = ("layer", "layers", "input", "input_dim", "input_shape")
_INLINE_FIELDS = ("net_param", "train_net_param", "test_net_param")


def find_nets(reading: Reading, solver_path: Path) -> None:
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
        nets = [written] * solver.HasField(name) if isinstance(written, str) else list(written)
        for place, net in enumerate(nets):
            _find_net(reading, solver_path, name, net, place + num_inline)


def _role(field_name: str) -> str:
    return {"tra": "train", "tes": "test"}.get(field_name[:3], "both")


def _find_net(reading: Reading, solver_path: Path, field_name: str, name: str, place: int) -> None:
    """One net: from the working folder as Caffe finds it, else from the solver's or above it."""
    assert reading.solver is not None
    at = reading.solver.at(field_name)
    beside = solver_path.absolute().parent
    folders = [Path(), *(folder for folder in (beside, *beside.parents) if folder != Path.cwd())]
    found = next((folder / name for folder in folders if is_file(folder / name)), None)
    if found is None and is_file(beside / Path(name).name):
        found = beside / Path(name).name
        reading.troubles.append(("net-elsewhere", _elsewhere(field_name, name, None, at)))
    elif found is None:
        reading.troubles.append(("net-missing", _missing(field_name, name, at)))
        return
    elif not is_file(Path(name)):
        reading.base = next(folder for folder in folders if is_file(folder / name))
        reading.troubles.append(("net-elsewhere", _elsewhere(field_name, name, reading.base, at)))
    shown = Path(name) if found == Path(name) else _short(found)
    text = read_text(shown)
    root = scan(text)
    if looks_like_solver(root):
        reading.troubles.append(("solver-as-net", _solver_as_net(field_name, name, root, at)))
        return
    file = parse_file(text, root, shown, messages.NetParameter)
    reading.nets.append(NetRole(file, _role(field_name), place))


def looks_like_solver(root: Node) -> bool:
    """Tells a solver from a net by its top-level fields."""
    names = {child.name for child in root.children}
    if names & set(NET_MARKS):
        return False
    return bool(names & (set(messages.SolverParameter.DESCRIPTOR.fields_by_name) - {"debug_info"}))


def _solver_as_net(field_name: str, name: str, root: Node, at: tuple[Place, ...]) -> Hit:
    """A solver in the place of a net; the net it names is probably the one that was meant."""
    inner = next((node.value for node in root.children if node.name in _NET_FIELDS), "")
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
