"""Resolves --resume: a run folder to continue, or a snapshot that a new run starts from.

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
        run_dir: folder of the new run; without ``named``, of the run to resume.
        solver: the solver given with --solver, or None.
        model: the model given with --weights, or None for the one that the solver state names.
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
        """The run folder to continue, if :func:`find_starting_point` returns None."""
        return self.place if self.place.is_dir() else self.place.absolute().parent.parent


@dataclass(frozen=True)
class StartingPoint:
    """A snapshot that a new run starts from.

    Attributes:
        solver: the solver that belongs to the snapshot.
        pair: the two files of the snapshot.
        run: their run folder, or None for a snapshot of another program.
    """

    solver: Path
    pair: Pair
    run: Path | None = None


def find_starting_point(request: ResumeRequest, say: Callable[[str], None]) -> StartingPoint | None:
    """The snapshot that a new run starts from; None to continue in the run folder itself.

    Args:
        request: the arguments of ``--resume``.
        say: called with a message for each skipped snapshot.

    Raises:
        UsageError: it is ambiguous; the message names the option that decides.
        MissingInputError: there is nothing to resume.
        InputError: a snapshot cannot be used.
    """
    named, place = request.named, request.place
    if named is None and (request.solver is not None or request.model is not None):
        raise UsageError(
            "--resume takes solver and weights from the run folder",
            "to use another --solver, give --resume FOLDER or --resume FILE.solverstate",
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
            "name the run folder with --resume RUN, or start a new run without --resume",
        )
    return _of_state(request)


def _of_run(request: ResumeRequest, say: Callable[[str], None]) -> StartingPoint | None:
    """The newest complete snapshot of a run folder; None to continue in it."""
    run, run_dir, solver, model = request.place, request.run_dir, request.solver, request.model
    in_place = (
        request.named is None or run_dir is None or (run_dir.exists() and run_dir.samefile(run))
    )
    if solver is None and model is None and in_place:
        return None
    if in_place or model is not None:
        raise UsageError(
            "--resume RUN takes solver and weights from the run folder",
            "give --run-dir NEW to start a new run from its newest snapshot with another --solver",
        )
    pair, problems = newest_complete(RunDir(run).snapshots)
    for why in problems:
        say(f"skipped snapshot: {why}")
    if pair is None:
        raise MissingInputError(f"{run} has no complete snapshot yet", "start it with --solver")
    return StartingPoint(solver or RunDir(run).solver, pair, run)


def _of_state(request: ResumeRequest) -> StartingPoint | None:
    """The snapshot of a solver state; None to continue in the run folder it is the newest of."""
    state, run_dir, solver, model = request.place, request.run_dir, request.solver, request.model
    if state.name.endswith(_MODEL_ENDINGS):
        beside = state.with_name(state.name.replace(".caffemodel", ".solverstate"))
        raise UsageError(
            f"--resume {state}: a model does not hold the state of the solver",
            f"continue with --resume {beside}, or begin at iteration 0 with --weights {state}",
        )
    if not state.is_file() or state.suffix == ".prototxt":
        what = "a prototxt" if state.is_file() else "not a file"
        raise InputError(
            f"--resume {state}: {what}",
            "it takes a .solverstate or a folder; give a solver with --solver FILE",
        )
    pair = complete_pair(state, model, solver)
    run = next((path for path in (state.absolute().parent.parent,) if is_run(path)), None)
    if run is not None and solver is None and run_dir is None and model is None:
        newest, _ = newest_complete(RunDir(run).snapshots)
        # The best snapshot has a name of its own, and may be the newest.
        if newest is not None and newest.iteration == pair.iteration:
            return None
    if solver is None:
        solver = RunDir(run).solver if run is not None else _solver_near(state)
    return StartingPoint(solver, pair, run)


def _of_folder(
    folder: Path, solver: Path | None, model: Path | None, say: Callable[[str], None]
) -> StartingPoint:
    """The newest complete snapshot of another program's training."""
    if model is not None:
        raise UsageError(
            f"--resume {folder} --weights {model}: the snapshot of this model is not known",
            f"name its solver state: --resume FILE.solverstate --weights {model}",
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
            f"several solvers may belong to the snapshots in {folder}: {_names(having)}",
            f"choose one with --solver: --resume {folder} --solver {having[0]}",
        )
    if not having:
        raise _no_snapshots(folder, list(found))
    places = {state.parent.resolve() for state in found[having[0]]}
    if len(places) > 1:
        raise UsageError(
            f"snapshots of {having[0]} are in several folders: {_names(places)}",
            f"name one solver state: --resume {found[having[0]][0]}",
        )
    for state in found[having[0]]:
        try:
            return StartingPoint(having[0], complete_pair(state, None, having[0]))
        except InputError as error:
            say(f"skipped snapshot: {error.message}")
    raise InputError(
        f"no snapshot in {next(iter(places))} is complete",
        "name a solver state and its model: --resume FILE.solverstate --weights FILE",
    )


def _no_snapshots(folder: Path, solvers: list[Path]) -> Irv2CaffeError:
    others = [pair.state for pair in pairs(folder)]
    if others:
        prefixes = ", ".join(repr(prefix_of(path)) for path in solvers)
        return UsageError(
            f"the names of the snapshots in {folder} do not match snapshot_prefix {prefixes}",
            f"name one solver state: --resume {others[0]} --solver {solvers[0]}",
        )
    return MissingInputError(
        f"there is no .solverstate in {folder} or in the folder of the snapshot_prefix of "
        f"{_names(solvers)}",
        "name one with --resume FILE.solverstate, or start a new run with --weights MODEL",
    )


def _solver_near(state: Path) -> Path:
    """Finds the solver of a solver state, in its folder or the one above."""
    for folder in (state.parent, state.absolute().parent.parent):
        solvers = solvers_in(folder)
        fitting = [path for path in solvers if state in states_of(path, state.parent)]
        if len(solvers) == 1:
            return solvers[0]
        if len(fitting) == 1:
            return fitting[0]
        if solvers:
            raise UsageError(
                f"several solvers may belong to {state}: {_names(solvers)}",
                f"choose one with --solver: --resume {state} --solver {solvers[0]}",
            )
    raise MissingInputError(
        f"there is no solver beside {state}, nor in the folder above",
        f"name it with --solver: --resume {state} --solver FILE",
    )


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(sorted(map(str, paths)))
