"""The run's own copy of all that Caffe reads, and the record of what it was made of."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe import __version__, system
from irv2caffe.caffe.docker import Container, container_name
from irv2caffe.errors import FormatError, OutputError
from irv2caffe.proto.binary import LIMIT_BYTES
from irv2caffe.proto.text import write_prototxt
from irv2caffe.train.plan.job import COPIED_FIELDS
from irv2caffe.train.plan.plan_text import as_dict, sums
from irv2caffe.train.run.git_revision import git_revision
from irv2caffe.train.run.supervisor import GLOG
from irv2caffe.train.run_dir.foreign_training import copy_pair
from irv2caffe.train.run_dir.records import read_config, starts_of, weights_of
from irv2caffe.train.run_dir.run_dir import OWN_NAMES, copy_file
from irv2caffe.train.run_dir.snapshots import Pair

if TYPE_CHECKING:
    from collections.abc import Set

    from irv2caffe.caffe.command import Command
    from irv2caffe.train.plan.plan import Plan
    from irv2caffe.train.run.options import SupervisionOptions
    from irv2caffe.train.run.verdict import Verdict
    from irv2caffe.train.run_dir.run_dir import RunDir

_DISPLAY = 20


def write_inputs(run: RunDir, plan: Plan, options: SupervisionOptions) -> Pair | None:
    """Writes nets, solver and ``config.json`` into a run folder, new or to be resumed.

    Returns:
        The copy of the snapshot that a new run goes on from, or None.

    Raises:
        OutputError: it cannot be written.
    """
    earlier = read_config(run.path)
    run.write_config({**earlier, **_record(plan, options, earlier)})
    names: dict[str, Path] = {}
    for name, net in plan.job.nets.items():
        _copy_files(run, net, plan.job.path, names, plan.job.nets.keys())
        write_prototxt(run.path / name, net)
    deploy = plan.job.path.absolute().parent / "deploy.prototxt"
    if deploy.is_file() and deploy.parent != run.path.absolute():
        copy_file(deploy, run.path / "deploy.prototxt")
    pair = _take_snapshot(run, plan)
    write_solver(run, plan)  # last: a folder with a solver can start
    return pair


def _take_snapshot(run: RunDir, plan: Plan) -> Pair | None:
    """Copies the snapshot that a new run goes on from; None where it begins at the beginning."""
    source = plan.options.snapshot
    if source is None:
        return None
    name = f"{_prefix(plan.solver.snapshot_prefix)}_iter_{source.iteration}"
    pair = Pair(
        source.iteration,
        run.snapshots.absolute() / f"{name}.solverstate",
        run.snapshots.absolute() / f"{name}.caffemodel",
    )
    copy_pair(source, pair, plan.job.train_net)
    return pair


def write_solver(run: RunDir, plan: Plan, *, only_test: bool = False) -> None:
    """Writes the solver as the run needs it.

    Args:
        run: the run folder.
        plan: what is trained.
        only_test: of the run only the last test is missing: its snapshot is not written again.

    Raises:
        OutputError: it cannot be written.
    """
    solver = _run_solver(run, plan)
    if only_test:
        solver.snapshot_after_train = False
    write_prototxt(run.solver, solver, header=f"irv2caffe {__version__}\n{sums(plan)}")


def _run_solver(run: RunDir, plan: Plan) -> Any:
    """The solver with absolute paths, and nothing that would lose the end."""
    solver = type(plan.solver)()
    solver.CopyFrom(plan.solver)
    folder = run.path.absolute()
    for field in ("net", "train_net"):
        if getattr(solver, field):
            setattr(solver, field, str(folder / getattr(solver, field)))
    solver.test_net[:] = [str(folder / name) for name in solver.test_net]
    solver.snapshot_prefix = str(folder / "snapshots" / _prefix(solver.snapshot_prefix))
    solver.solver_mode = type(solver).GPU if plan.gpus else type(solver).CPU
    solver.display = solver.display or _DISPLAY
    # BVLC writes no snapshot at the end, or when it is stopped, where this is false.
    solver.ClearField("snapshot_after_train")
    solver.ClearField("snapshot_format")
    return solver


def _prefix(path: str) -> str:
    name = Path(path).name
    return name if name not in {"", ".", ".."} else "net"


def _copy_files(
    run: RunDir, net: Any, solver: Path, names: dict[str, Path], taken: Set[str]
) -> None:
    """Mean images and matrices lie in the run folder, too, so that it is whole.

    Args:
        run: the run folder.
        net: gets the paths of the copies.
        solver: that names the net.
        names: of the copies so far, and what they are of.
        taken: names of other files.
    """
    folder = run.path.absolute()
    beside = solver.absolute().parent
    for layer in net.layer:
        for param, field in COPIED_FIELDS:
            if not layer.HasField(param) or not getattr(getattr(layer, param), field):
                continue
            message = getattr(layer, param)
            source = Path(getattr(message, field))
            if not source.is_file() and (beside / source.name).is_file():
                source = beside / source.name  # of a run folder that was moved
            target = folder / source.name
            if source.is_file() and source.parent != folder:
                target = folder / _free_name(source, names, taken)
                if source.stat().st_size > LIMIT_BYTES:
                    raise FormatError("is longer than any mean image or matrix", path=source)
                copy_file(source, target)
            if target.is_file():
                setattr(message, field, str(target))


def _free_name(source: Path, names: dict[str, Path], taken: Set[str]) -> str:
    """Two files of one name, from two folders, stay two."""
    for number in count(1):
        name = source.name if number == 1 else f"{number}_{source.name}"
        if name not in OWN_NAMES and name not in taken and names.setdefault(name, source) == source:
            return name
    raise AssertionError


def _record(plan: Plan, options: SupervisionOptions, earlier: dict[str, Any]) -> dict[str, Any]:
    """What the run is made of."""
    revision = git_revision(Path.cwd())
    return {
        "irv2caffe": __version__,
        "argv": sys.argv,
        "started": earlier.get("started", _now()),
        "solver": earlier.get("solver", plan.options.origin or str(plan.job.path.absolute())),
        "snapshot": earlier.get(
            "snapshot",
            str(plan.options.snapshot.state.absolute()) if plan.options.snapshot else None,
        ),
        "weights": earlier.get("weights", [str(path.absolute()) for path in plan.options.weights]),
        "caffe": {
            "root": str(plan.found.root),
            "program": plan.found.name,
            "image": plan.found.image,
            "reason": plan.found.reason,
            "version": plan.can.version if plan.can is not None else None,
            "flavor": plan.flavor,
        },
        "gpus": plan.gpus or "none",
        "num_train_images": plan.num_train,
        "num_val_images": plan.num_val,
        "effective_batch": plan.effective_batch,
        "epochs": plan.epochs,
        "plan": as_dict(plan),
        "options": {
            **asdict(options),
            "keep_newest": plan.options.keep_newest,
            "keep_epochs": plan.options.keep_epochs,
            "ignore_findings": plan.options.ignore_findings,
        },
        "versions": system.versions(),
        "machine": system.machine(),
        "git": {"revision": revision} if revision else None,
        "starts": starts_of(earlier),
        "ending": "running",
        "why": None,
    }


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def record_start(run: RunDir, number: int, command: Command, plan: Plan, pair: Pair | None) -> None:
    """Adds a start to ``config.json``."""
    config = read_config(run.path)
    starts = starts_of(config)
    starts.append(
        {
            "number": number,
            "time": _now(),
            "argv": list(command.argv),
            "from_iteration": pair.iteration if pair is not None else 0,
            "snapshot": str(pair.state) if pair is not None else None,
            "base_lr": float(f"{plan.solver.base_lr:.7g}"),
            "effective_batch": plan.effective_batch,
            "gpus": plan.gpus or "none",
        }
    )
    run.write_config({**config, "starts": starts, "ending": "running", "why": None})


def record_end(
    run: RunDir, verdict: Verdict, exit_status: int | None, iteration: int | None
) -> None:
    """Completes the last start in ``config.json``."""
    config = read_config(run.path)
    for start in starts_of(config)[-1:]:
        start.update(
            ended=_now(),
            ending=verdict.ending.value,
            why=verdict.why,
            exit_status=exit_status,
            iteration=iteration,
        )
    with contextlib.suppress(OutputError):  # a full disk has its own verdict
        run.write_config(config)


def caffe_arguments(run: RunDir, plan: Plan, pair: Pair | None) -> list[str]:
    """Of ``caffe``: how to begin, or where to go on."""
    gpus = plan.gpus
    if plan.found.image and gpus:  # inside of a container they are counted anew
        gpus = ",".join(map(str, range(plan.devices.count)))
    args = ["train", "-solver", str(run.solver.absolute()), *(["-gpu", gpus] if gpus else [])]
    if pair is not None:
        return [*args, "-snapshot", str(pair.state.absolute())]
    weights = weights_of(read_config(run.path))
    return [*args, "-weights", ",".join(weights)] if weights else args


def container(run: RunDir, plan: Plan, number: int) -> Container | None:
    """What a docker image gets to see; None where none is used."""
    if not plan.found.image:
        return None
    folder = run.path.absolute()
    weights = [Path(name).absolute() for name in weights_of(read_config(run.path))]
    readable = {Path(use.source) for use in plan.databases} | {path.parent for path in weights}
    for net in plan.job.nets.values():
        for layer in net.layer:
            if layer.type in {"ImageData", "HDF5Data", "WindowData"}:
                readable |= _folders_of(layer)
    return Container(
        name=container_name(folder.name, number, _now().translate({ord(c): None for c in "-:+T"})),
        writable=(folder,),
        readable=tuple(sorted(path for path in readable if not path.is_relative_to(folder))),
        gpus=",".join(plan.devices.names),
        env=GLOG,
        workdir=folder,
    )


def _folders_of(layer: Any) -> set[Path]:
    param = {
        "ImageData": layer.image_data_param,
        "HDF5Data": layer.hdf5_data_param,
        "WindowData": layer.window_data_param,
    }[layer.type]
    names = [param.source, getattr(param, "root_folder", "")]
    paths = [Path(name) for name in names if name]
    return {path if path.is_dir() else path.parent for path in paths}
