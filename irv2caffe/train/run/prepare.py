"""Writes the run folder's copies of Caffe's input files; builds Caffe's command line."""

from __future__ import annotations

from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe import __version__
from irv2caffe.caffe.docker import Container, container_name
from irv2caffe.data.records.database_files import LABELS
from irv2caffe.errors import FormatError
from irv2caffe.proto.binary import LIMIT_BYTES
from irv2caffe.proto.text import write_prototxt
from irv2caffe.train.plan.job import COPIED_FIELDS
from irv2caffe.train.plan.plan_text import sums
from irv2caffe.train.run.config_json import write_config
from irv2caffe.train.run.supervisor import GLOG
from irv2caffe.train.run_dir.folders import OWN_NAMES, copy_file
from irv2caffe.train.run_dir.foreign_training import copy_pair
from irv2caffe.train.run_dir.run_dir import read_config, weights_of
from irv2caffe.train.run_dir.snapshots import Pair

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

    from irv2caffe.train.plan.plan import Plan
    from irv2caffe.train.run.options import SupervisionOptions
    from irv2caffe.train.run_dir.run_dir import RunDir

_DISPLAY = 20
# Data layers that read a list of files.
_LIST_PARAMS = {
    "ImageData": "image_data_param",
    "HDF5Data": "hdf5_data_param",
    "WindowData": "window_data_param",
}


def write_inputs(run: RunDir, plan: Plan, options: SupervisionOptions) -> Pair | None:
    """Writes nets, solver and ``config.json`` into a new or resumed run folder.

    Returns:
        The copy of the snapshot that a new run starts from, or None.

    Raises:
        OutputError: it cannot be written.
    """
    write_config(run, plan, options)
    _copy_files(run, plan)
    for name, net in plan.job.nets.items():
        write_prototxt(run.path / name, net)
    deploy = plan.job.path.absolute().parent / "deploy.prototxt"
    if deploy.is_file() and deploy.parent != run.path.absolute():
        copy_file(deploy, run.path / "deploy.prototxt")
    _copy_class_table(run, plan)
    pair = _copy_snapshot(run, plan)
    write_solver(run, plan)  # last: a folder that has a solver is complete
    return pair


def _copy_class_table(run: RunDir, plan: Plan) -> None:
    """Copies the class names, which a net in use needs where the databases are not."""
    for use in sorted(plan.databases, key=lambda use: use.phase):  # TEST before TRAIN
        table = use.source / LABELS
        if use.database.class_names and table.is_file():
            copy_file(table, run.path / LABELS)
            return


def _copy_snapshot(run: RunDir, plan: Plan) -> Pair | None:
    """Copies the snapshot that a new run starts from; None without one."""
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
    """Writes the run's own solver.

    Args:
        run: the run folder.
        plan: the plan of the training.
        only_test: only the last test is missing; do not write the last snapshot again.

    Raises:
        OutputError: it cannot be written.
    """
    solver = _run_solver(run, plan)
    if only_test:
        solver.snapshot_after_train = False
    write_prototxt(run.solver, solver, header=f"irv2caffe {__version__}\n{sums(plan)}")


def _run_solver(run: RunDir, plan: Plan) -> Any:
    """The solver with absolute paths, and with a snapshot at the end."""
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
    # With false, BVLC writes no snapshot at the end, or when it is stopped.
    solver.ClearField("snapshot_after_train")
    solver.ClearField("snapshot_format")
    return solver


def _prefix(path: str) -> str:
    name = Path(path).name
    return name if name not in {"", ".", ".."} else "net"


def _copy_files(run: RunDir, plan: Plan) -> None:
    """Copies mean images and matrices into the run folder, and points the nets to the copies."""
    folder = run.path.absolute()
    beside = plan.job.path.absolute().parent
    copies: dict[str, Path] = {}
    for net in plan.job.nets.values():
        for message, field in _copied_fields(net):
            source = Path(getattr(message, field))
            if not source.is_file() and (beside / source.name).is_file():
                source = beside / source.name  # in a moved run folder
            target = folder / source.name
            if source.is_file() and source.parent != folder:
                target = folder / _free_name(source, copies, plan.job.nets.keys())
                if source.stat().st_size > LIMIT_BYTES:
                    raise FormatError("is longer than any mean image or matrix", path=source)
                copy_file(source, target)
            if target.is_file():
                setattr(message, field, str(target))


def _copied_fields(net: Any) -> Iterator[tuple[Any, str]]:
    """The fields of a net that name files to copy."""
    for layer in net.layer:
        for param, field in COPIED_FIELDS:
            if layer.HasField(param) and getattr(getattr(layer, param), field):
                yield getattr(layer, param), field


def _free_name(source: Path, copies: dict[str, Path], taken: Set[str]) -> str:
    """A name for a copy; files of the same name from two folders get different names."""
    for number in count(1):
        name = source.name if number == 1 else f"{number}_{source.name}"
        is_free = name not in OWN_NAMES and name not in taken
        if is_free and copies.setdefault(name, source) == source:
            return name
    raise AssertionError


def caffe_arguments(run: RunDir, plan: Plan, pair: Pair | None) -> list[str]:
    """The arguments of ``caffe``, from the beginning or from a snapshot."""
    gpus = plan.gpus
    if plan.engine.image and gpus:  # a container numbers its GPUs from 0
        gpus = ",".join(map(str, range(plan.devices.count)))
    args = ["train", "-solver", str(run.solver.absolute()), *(["-gpu", gpus] if gpus else [])]
    if pair is not None:
        return [*args, "-snapshot", str(pair.state.absolute())]
    weights = weights_of(read_config(run.path))
    return [*args, "-weights", ",".join(weights)] if weights else args


def container(run: RunDir, plan: Plan, number: int) -> Container | None:
    """The container to run Caffe in, with the folders it can access; None without docker."""
    if not plan.engine.image:
        return None
    folder = run.path.absolute()
    stamp = datetime.now().astimezone().isoformat(timespec="seconds")
    weights = [Path(name).absolute() for name in weights_of(read_config(run.path))]
    readable = {Path(use.source) for use in plan.databases} | {path.parent for path in weights}
    for net in plan.job.nets.values():
        for layer in net.layer:
            readable |= _folders_of(layer)
    return Container(
        name=container_name(folder.name, number, stamp.translate({ord(c): None for c in "-:+T"})),
        writable=(folder,),
        readable=tuple(sorted(path for path in readable if not path.is_relative_to(folder))),
        gpus=",".join(plan.devices.names),
        env=GLOG,
        workdir=folder,
    )


def _folders_of(layer: Any) -> set[Path]:
    """The folders of files other than databases that a data layer reads."""
    name = _LIST_PARAMS.get(layer.type)
    if name is None:
        return set()
    param = getattr(layer, name)
    paths = [Path(name) for name in (param.source, getattr(param, "root_folder", "")) if name]
    return {path if path.is_dir() else path.parent for path in paths}
