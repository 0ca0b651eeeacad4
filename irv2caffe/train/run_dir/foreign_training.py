"""Reads solvers and snapshots of a training that another program started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import FormatError, InputError, MissingInputError
from irv2caffe.proto import messages
from irv2caffe.proto.snapshot_headers import read_state_header
from irv2caffe.proto.text import read_prototxt
from irv2caffe.system import read_regular
from irv2caffe.train.run_dir import checksums
from irv2caffe.train.run_dir import hdf5_snapshots as hdf5
from irv2caffe.train.run_dir.folders import copy_file
from irv2caffe.train.run_dir.retention import delete
from irv2caffe.train.run_dir.snapshot_name import parse_name
from irv2caffe.train.run_dir.snapshots import Pair, checksum_problem, fix_model_path, problem

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_SOLVER_BYTES = 1 << 20
_SOLVER_FIELDS = (b"max_iter", b"base_lr")  # skips nets, which can be long, without parsing them
_NET_FIELDS = ("net", "train_net", "net_param", "train_net_param")


def solvers_in(folder: Path) -> list[Path]:
    """The prototxts in a folder that are solvers and name a net."""
    found = []
    for path in sorted(folder.glob("*.prototxt")):
        try:
            if any(word in read_regular(path, _MAX_SOLVER_BYTES) for word in _SOLVER_FIELDS):
                solver = _solver(path)
                if any(getattr(solver, name) for name in _NET_FIELDS[:2]) or any(
                    solver.HasField(name) for name in _NET_FIELDS[2:]
                ):
                    found.append(path)
        except (FormatError, MissingInputError, OSError):
            continue  # probably a net
    return found


def _solver(path: Path) -> Any:
    return read_prototxt(path, messages.SolverParameter)


def prefix_of(solver: Path) -> str:
    """The snapshot_prefix of a solver; empty if it has none."""
    return str(_solver(solver).snapshot_prefix)


def states_of(solver: Path, folder: Path) -> list[Path]:
    """The solver states of a solver, newest first: in a folder, and where its prefix points.

    A relative prefix is relative to the folder that Caffe was started in: usually this one, the
    solver's, or one above it.
    """
    below, name = os.path.split(prefix_of(solver))
    # Without a prefix, the names of snapshots differ between versions of Caffe.
    names = {name} if name or below else {"", solver.stem}
    beside = solver.absolute().parent
    places = [folder, *(base / below for base in (beside, *beside.parents, Path.cwd()) if below)]
    known: dict[Path, Path] = {}
    for place in places:
        if place.is_dir():
            known.setdefault(place.resolve(), place)
    found = []
    for place in known.values():
        for path in place.iterdir():
            parts = parse_name(path.name)
            if parts is not None and "state" in parts.suffix and parts.prefix in names:
                found.append((parts.iteration, path))
    return [path for _, path in sorted(found, reverse=True)]


def complete_pair(state: Path, model: Path | None, solver: Path | None) -> Pair:
    """Returns the pair of a solver state after checking that it is complete.

    Raises:
        InputError: it is truncated, or its model is missing.
    """
    outline = hdf5.state_header(state) if hdf5.is_hdf5(state) else read_state_header(state)
    pair = Pair(outline.iteration, state, model or _model_of(state, outline.learned_net, solver))
    why = "" if _any_hdf5(pair) else problem(pair) or checksum_problem(pair)
    if why:
        raise InputError(
            why, "an older snapshot may be complete: name it with --resume FILE.solverstate"
        )
    return pair


def _any_hdf5(pair: Pair) -> bool:
    return hdf5.is_hdf5(pair.state) or hdf5.is_hdf5(pair.model)


def refuse_other_net(pair: Pair, net: Any) -> None:
    """Raises InputError if a pair belongs to another net."""
    why = "" if _any_hdf5(pair) else problem(pair, net, check_finite=False)
    if why:
        raise InputError(why)
    if hdf5.is_hdf5(pair.model):
        hdf5.refuse_other_net(pair.model, net)


def copy_pair(source: Pair, target: Pair, net: Any) -> None:
    """Copies a pair, converts HDF5 to binary, and corrects the model path in the state.

    Raises:
        InputError: it cannot be used.
        OutputError: it cannot be written.
    """
    try:
        if hdf5.is_hdf5(source.model):
            hdf5.write_weights(source.model, target.model, net)
        else:
            copy_file(source.model, target.model)
        if hdf5.is_hdf5(source.state):
            hdf5.write_state(source.state, target.state, str(target.model))
        else:
            copy_file(source.state, target.state)
            fix_model_path(target)
        if source.averaged.is_file():
            copy_file(source.averaged, target.averaged)
        why = problem(target, net)
        if why:
            raise InputError(f"{source.state} cannot be used: {why}")
        checksums.record((target.model, target.state))
    except BaseException:
        delete([target])
        raise


def _model_of(state: Path, learned_net: str, solver: Path | None) -> Path:
    """Finds the model of a solver state: beside it, or at the path that it names.

    Raises:
        MissingInputError: there is none.
    """
    beside = state.with_name(state.name.replace(".solverstate", ".caffemodel"))
    named = Path(learned_net)
    bases: Iterable[Path] = (Path(), *((solver.absolute().parent,) if solver is not None else ()))
    for path in (beside, *(base / named for base in bases), state.parent / named.name):
        if path.is_file():
            return path
    raise MissingInputError(
        f"{state}: its model {learned_net} is missing, and there is no {beside.name} beside it",
        f"name the model: --resume {state} --weights FILE.caffemodel",
    )
