"""What --resume names: a run folder to go on in, or a snapshot that a new run folder starts from.

Files of another program's training are only read: its snapshot is copied into the new run folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.errors import InputError, Irv2CaffeError, MissingInputError, UsageError
from irv2caffe.train.run_dir.folders import RUNS, is_run
from irv2caffe.train.run_dir.foreign_training import (
    complete_pair,
    prefix_of,
    solvers_in,
    states_of,
)
from irv2caffe.train.run_dir.run_dir import RunDir
from irv2caffe.train.run_dir.snapshots import Pair, newest_complete, pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_MODEL_ENDINGS = (".caffemodel", ".caffemodel.h5")


@dataclass(frozen=True)
class ResumeRequest:
    """The arguments of ``train --resume``.

    Attributes:
        named: a run folder, a folder of another program's training, or a solver state.
        run_dir: of the new run; without ``named``, of the run to resume.
        solver: the solver that was given, or None.
        model: the model that was given, if it is not the one the solver state names.
    """

    named: Path | None
    run_dir: Path | None
    solver: Path | None = None
    model: Path | None = None

    @property
    def place(self) -> Path:
        """The file or folder to resume from."""
        return self.named or self.run_dir or RUNS / "latest"

    @property
    def run(self) -> Path:
        """The run folder to go on in, if :func:`find_starting_point` finds no other snapshot."""
        return self.place if self.place.is_dir() else self.place.absolute().parent.parent


@dataclass(frozen=True)
class StartingPoint:
    """A snapshot that a new run starts from.

    Attributes:
        solver: the solver that belongs to it.
        pair: the two files, in their place.
        run: the run folder they are of, or None for another program's.
    """

    solver: Path
    pair: Pair
    run: Path | None = None


def find_starting_point(request: ResumeRequest, say: Callable[[str], None]) -> StartingPoint | None:
    """The snapshot that a new run starts from; None if a run folder itself goes on.

    Args:
        request: the arguments of ``--resume``.
        say: called with the snapshots that are skipped.

    Raises:
        UsageError: it is ambiguous; the message names the option that decides.
        MissingInputError: there is nothing to resume.
        InputError: a snapshot cannot be used.
    """
    named, place = request.named, request.place
    if named is None and (request.solver is not None or request.model is not None):
        raise UsageError(
            "--resume takes solver and weights from the run folder",
            "--resume FOLDER or --resume FILE.solverstate goes with another --solver",
        )
    if named is not None and not place.exists():
        raise MissingInputError(
            f"--resume {place}: no such file or folder",
            "it takes a run folder, the folder of another training, or a .solverstate",
        )
    if place.is_dir() and is_run(place):
        return _of_run(request, say)
    if place.is_dir():
        return _of_folder(place, request.solver, request.model, say)
    if named is None:
        raise MissingInputError(
            f"{place} holds no run to resume",
            "--resume RUN names the run folder; without --resume a new run starts",
        )
    return _of_state(request)


def _of_run(request: ResumeRequest, say: Callable[[str], None]) -> StartingPoint | None:
    """From the newest complete snapshot of a run folder, or in it."""
    run, run_dir, solver, model = request.place, request.run_dir, request.solver, request.model
    in_place = (
        request.named is None or run_dir is None or (run_dir.exists() and run_dir.samefile(run))
    )
    if solver is None and model is None and in_place:
        return None
    if in_place or model is not None:
        raise UsageError(
            "--resume RUN takes solver and weights from the run folder",
            "with --run-dir NEW a new run goes on from its newest snapshot, with another --solver",
        )
    pair, problems = newest_complete(RunDir(run).snapshots)
    for why in problems:
        say(f"skipped snapshot: {why}")
    if pair is None:
        raise MissingInputError(f"{run} has no complete snapshot yet", "start it with --solver")
    return StartingPoint(solver or RunDir(run).solver, pair, run)


def _of_state(request: ResumeRequest) -> StartingPoint | None:
    """From a solver state; None if it is the newest of a run folder, which then goes on."""
    state, run_dir, solver, model = request.place, request.run_dir, request.solver, request.model
    if state.name.endswith(_MODEL_ENDINGS):
        beside = state.with_name(state.name.replace(".caffemodel", ".solverstate"))
        raise UsageError(
            f"--resume {state}: a model, which does not say where its solver was",
            f"--resume {beside} goes on from there; --weights {state} begins at iteration 0",
        )
    if not state.is_file() or state.suffix == ".prototxt":
        what = "a prototxt" if state.is_file() else "not a file"
        raise InputError(
            f"--resume {state}: {what}",
            "it takes a .solverstate or a folder; --solver FILE beside it names a solver",
        )
    pair = complete_pair(state, model, solver)
    run = next((path for path in (state.absolute().parent.parent,) if is_run(path)), None)
    if run is not None and solver is None and run_dir is None and model is None:
        newest, _ = newest_complete(RunDir(run).snapshots)
        if newest is not None and newest.state.samefile(state):
            return None
    if solver is None:
        solver = RunDir(run).solver if run is not None else _solver_near(state)
    return StartingPoint(solver, pair, run)


def _of_folder(
    folder: Path, solver: Path | None, model: Path | None, say: Callable[[str], None]
) -> StartingPoint:
    """From the newest complete snapshot of another program's training."""
    if model is not None:
        raise UsageError(
            f"--resume {folder} --weights {model}: of which snapshot is it the model?",
            f"name that one: --resume FILE.solverstate --weights {model}",
        )
    solvers = [solver] if solver is not None else solvers_in(folder)
    above = [] if solvers else solvers_in(folder.absolute().parent)
    if not solvers and not above:
        raise MissingInputError(
            f"{folder} holds neither a run nor a solver",
            "--solver FILE names the solver that its snapshots are of",
        )
    found = {path: states_of(path, folder) for path in solvers or above}
    if above:  # not the snapshots of other folders
        for states in found.values():
            states[:] = [state for state in states if state.parent.samefile(folder)]
    having = [path for path, states in found.items() if states]
    if len(having) > 1:
        raise UsageError(
            f"{folder} holds snapshots that {_names(having)} may be the solver of",
            f"--solver FILE says which: --resume {folder} --solver {having[0]}",
        )
    if not having:
        raise _no_snapshots(folder, list(found))
    places = {state.parent.resolve() for state in found[having[0]]}
    if len(places) > 1:
        raise UsageError(
            f"snapshots of {having[0]} lie in {_names(places)}",
            f"name one itself: --resume {found[having[0]][0]}",
        )
    for state in found[having[0]]:
        try:
            return StartingPoint(having[0], complete_pair(state, None, having[0]))
        except InputError as error:
            say(f"skipped snapshot: {error.message}")
    raise InputError(
        f"no snapshot in {next(iter(places))} is complete",
        "--weights FILE with --resume FILE.solverstate names the model of a solver state",
    )


def _no_snapshots(folder: Path, solvers: list[Path]) -> Irv2CaffeError:
    others = [pair.state for pair in pairs(folder)]
    if others:
        prefixes = ", ".join(repr(prefix_of(path)) for path in solvers)
        return UsageError(
            f"the snapshots in {folder} are not named as snapshot_prefix {prefixes} says",
            f"name one itself: --resume {others[0]} --solver {solvers[0]}",
        )
    return MissingInputError(
        f"{folder} holds no .solverstate, nor does the folder of {_names(solvers)}'s "
        "snapshot_prefix",
        "--resume FILE.solverstate names it; --weights MODEL starts anew from a .caffemodel",
    )


def _solver_near(state: Path) -> Path:
    """The solver of a solver state, in its folder or the one above."""
    for folder in (state.parent, state.absolute().parent.parent):
        solvers = solvers_in(folder)
        fitting = [path for path in solvers if state in states_of(path, state.parent)]
        if len(solvers) == 1:
            return solvers[0]
        if len(fitting) == 1:
            return fitting[0]
        if solvers:
            raise UsageError(
                f"{state} may be of {_names(solvers)}",
                f"--solver FILE says which: --resume {state} --solver {solvers[0]}",
            )
    raise MissingInputError(
        f"there is no solver beside {state}, nor in the folder above",
        f"--solver FILE names it: --resume {state} --solver FILE",
    )


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(sorted(map(str, paths)))
