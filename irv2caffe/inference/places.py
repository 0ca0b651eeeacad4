"""Where the files of a model are: in a run, in a bundle, or beside the weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.errors import FormatError, InputError, MissingInputError, UsageError, first_of
from irv2caffe.inference.preprocessing import FILE
from irv2caffe.proto import messages
from irv2caffe.proto.snapshot_headers import read_model_header
from irv2caffe.proto.text import read_prototxt
from irv2caffe.train.run_dir.best import best_snapshot
from irv2caffe.train.run_dir.folders import existing_run_dir, is_run
from irv2caffe.train.run_dir.snapshot_name import parse_name

if TYPE_CHECKING:
    from collections.abc import Iterable

_MODELS = (".caffemodel", ".caffemodel.h5")
_DEPLOY, _TRAIN_VAL = "deploy.prototxt", "train_val.prototxt"
_SOLVER_FIELDS = ("test_net", "net", "train_net")


@dataclass(frozen=True)
class Place:
    """The files of a model.

    Attributes:
        weights: the .caffemodel.
        net: its net; in a run the trained one.
        deploy: a deploy net beside it, whose header may tell the preprocessing.
        train_val: the net that was trained, if it is there.
        bundle: the folder with preprocessing.json, if there is one.
        run: the run folder, if it is one.
        iteration: of the snapshot, if its name tells it.
        notes: one line for each thing that was chosen.
    """

    weights: Path
    net: Path
    deploy: Path | None = None
    train_val: Path | None = None
    bundle: Path | None = None
    run: Path | None = None
    iteration: int | None = None
    notes: tuple[str, ...] = ()


def find_place(source: Path, net: Path | None, snapshot: str) -> Place:
    """Finds the files of a model.

    Args:
        source: a run folder, a bundle, a .caffemodel, or a folder with one.
        net: the net that the user names.
        snapshot: of a run: ``best``, ``last`` or an iteration.

    Raises:
        MissingInputError: no such file, or no net or weights in the folder.
        UsageError: no snapshot of this name.
    """
    if source.is_dir():
        if is_run(source):
            return _in_run(existing_run_dir(source).path, net, snapshot)
        return _in_folder(source, net)
    if not source.is_file():
        raise MissingInputError(f"{source}: no such file or folder", "check the path")
    if not source.name.endswith(_MODELS):
        raise FormatError("not a model", _other_kind(source), path=source)
    return _of_weights(source, net)


def is_model(path: Path) -> bool:
    """Whether something is a run, a model, or a folder with a model; images are not."""
    if path.is_dir():
        return is_run(path) or any(one.name.endswith(_MODELS) for one in path.iterdir())
    return path.name.endswith(_MODELS)


def _other_kind(source: Path) -> str:
    if source.suffix == ".prototxt":
        return "give the .caffemodel here, and this net with --net"
    if source.name.endswith((".solverstate", ".solverstate.h5")):
        beside = source.name.replace(".solverstate", ".caffemodel")
        return f"the weights are in {beside} beside it"
    return "give a run folder, a .caffemodel, or a folder made by deploy"


def _in_run(run: Path, net: Path | None, snapshot: str) -> Place:
    weights, iteration, notes = _snapshot(run, snapshot)
    train_val = _net_of_run(run)
    deploy = run / _DEPLOY
    return Place(
        weights,
        net or train_val,
        deploy=deploy if deploy.is_file() else None,
        train_val=train_val,
        run=run,
        iteration=iteration,
        notes=notes,
    )


def _net_of_run(run: Path) -> Path:
    """The net that the solver tests with; in the run folder, whatever the solver says."""
    solver = read_prototxt(run / "solver.prototxt", messages.SolverParameter)
    for field in _SOLVER_FIELDS:
        value = getattr(solver, field)
        names = [value] if isinstance(value, str) else list(value)
        for name in filter(None, names):
            path = run / Path(name).name
            if path.is_file():
                return path
    raise MissingInputError(f"{run}: the net of its solver is not there", "name one with --net")


def _snapshot(run: Path, wanted: str) -> tuple[Path, int | None, tuple[str, ...]]:
    """The model of a snapshot, its iteration, and notes."""
    folder = run / "snapshots"
    best = best_snapshot(run) if wanted == "best" else None
    if best is not None:
        return best.weights, best.iteration, ()
    found = {
        name.iteration: path
        for path in sorted(folder.glob("*_iter_*"))
        if (name := parse_name(path.name)) and path.name.endswith(_MODELS)
    }
    if not found:
        raise MissingInputError(f"{run} has no snapshot yet", "train writes it to snapshots/")
    if wanted in {"best", "last"}:
        last, notes = _last_complete(found)
        if wanted == "best":
            note = f"the run has kept no best snapshot: that of iteration {last:,} is taken"
            notes = (*notes, note)
        return found[last], last, notes
    if not wanted.isdecimal() or int(wanted) not in found:
        raise UsageError(
            f"{wanted}: there is no such snapshot in {folder}",
            f"best, last, or an iteration: {first_of([str(one) for one in sorted(found)], 20)}",
        )
    return found[int(wanted)], int(wanted), ()


def _last_complete(found: dict[int, Path]) -> tuple[int, tuple[str, ...]]:
    """The newest iteration whose file is complete; the trainer may be writing the last one."""
    newest, *others = sorted(found, reverse=True)
    for iteration in (newest, *others):
        if not found[iteration].name.endswith(".h5"):
            try:
                read_model_header(found[iteration])
            except FormatError:
                continue
        is_newest = iteration == newest
        return iteration, () if is_newest else (f"{found[newest]} is incomplete: not taken",)
    return newest, ()  # whose error is shown


def _in_folder(folder: Path, net: Path | None) -> Place:
    models = sorted(path for path in folder.iterdir() if path.name.endswith(_MODELS))
    if len(models) != 1:
        what = f"holds {len(models)} models" if models else "is neither a run nor holds a model"
        shown = first_of([path.name for path in models], 5)
        raise InputError(
            f"{folder} {what}",
            f"give one of them: {shown}"
            if models
            else "give a run folder, a .caffemodel, or a folder made by deploy",
        )
    return _of_weights(models[0], net)


def _of_weights(weights: Path, net: Path | None) -> Place:
    folder = weights.parent
    name = parse_name(weights.name)
    iteration = name.iteration if name else None
    above = (folder / "..").resolve() if folder.name == "snapshots" else folder.absolute().parent
    if net is None and folder.name == "snapshots" and is_run(above):
        deploy = above / _DEPLOY
        own = _net_of_run(above)
        is_there = deploy.is_file()
        return Place(
            weights, own, deploy if is_there else None, own, run=above, iteration=iteration
        )
    if (folder / FILE).is_file():
        return Place(weights, net or _one_net([folder], weights), bundle=folder)
    chosen = net or _one_net([folder, above], weights)
    if not chosen.is_file():
        raise MissingInputError(f"--net {chosen}: no such file", "check the path")
    beside = chosen.with_name(_TRAIN_VAL)
    return Place(
        weights,
        chosen,
        deploy=chosen,
        train_val=beside if beside.is_file() else None,
        iteration=iteration,
    )


def _one_net(folders: Iterable[Path], weights: Path) -> Path:
    """The net beside weights."""
    seen: list[Path] = []
    for folder in folders:
        nets = sorted(path for path in folder.glob("*.prototxt") if "solver" not in path.name)
        seen += nets
        for wanted in (_DEPLOY, _TRAIN_VAL):
            if folder / wanted in nets:
                return folder / wanted
        deploys = [path for path in nets if "deploy" in path.name.lower()]
        for group in (deploys, nets):
            if len(group) == 1:
                return group[0]
        if nets:
            break
    what = "several nets" if seen else "no net"
    raise MissingInputError(
        f"{weights}: {what} beside it",
        "name its prototxt with --net"
        + (f", such as {first_of([str(path) for path in seen], 3)}" if seen else ""),
    )
