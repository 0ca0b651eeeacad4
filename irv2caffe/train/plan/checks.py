"""The checks of a plan that need all of it: disk, weights, run folder, tests, GPUs."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe import system
from irv2caffe.errors import (
    FormatError,
    InputError,
    Irv2CaffeError,
    MissingInputError,
    NetError,
    OutputError,
    OutputExistsError,
    UsageError,
)
from irv2caffe.proto.snapshot_headers import read_model_header
from irv2caffe.train.plan.estimate import Estimate, estimate
from irv2caffe.train.plan.findings import is_error, look, problem
from irv2caffe.train.plan.gpus import notes as gpu_notes
from irv2caffe.train.plan.job import noted
from irv2caffe.train.plan.memory import check_memory
from irv2caffe.train.run_dir.folders import refuse_used
from irv2caffe.train.run_dir.foreign_training import refuse_other_net
from irv2caffe.train.run_dir.hdf5_snapshots import is_hdf5
from irv2caffe.train.run_dir.retention import KeepPolicy
from irv2caffe.train.run_dir.snapshots import net_differences, pairs
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from irv2caffe.check.finding import Finding
    from irv2caffe.data.inspect.database import Databases
    from irv2caffe.train.plan.plan import Plan
    from irv2caffe.train.run_dir.snapshots import Pair

# Snapshots that stay where nobody said how many: the newest, one before it, and one to spare.
_KEEP_NEWEST = 3


@dataclass(frozen=True)
class Disk:
    """What snapshots take.

    Attributes:
        pair_bytes: of one snapshot's two files, or None where that is not known yet.
        num_kept: that will lie there at the end.
        free_bytes: on the disk of the run folder.
    """

    pair_bytes: int | None
    num_kept: int
    free_bytes: int


def keep_policy(plan: Plan) -> KeepPolicy:
    """Which snapshots stay: the newest, every tenth epoch's, and the solver's own.

    Where a number was given, the solver's own go too, and those of earlier calls.
    """
    options = plan.options
    per_epoch = plan.iterations_per_epoch
    every = options.keep_epochs * per_epoch if per_epoch and options.keep_epochs else None
    if options.keep_newest is not None:
        return KeepPolicy(options.keep_newest, every)
    return KeepPolicy(_KEEP_NEWEST, every, int(plan.solver.snapshot) or None, earlier=True)


def checked(plan: Plan, facts: Databases, problems: list[Irv2CaffeError]) -> Plan:
    """The plan with its disk, its notes and all problems.

    Args:
        plan: without them.
        facts: of the databases.
        problems: that are known already.
    """
    notes = _notes(plan)
    for path in plan.options.weights:
        with noted(problems):
            notes += _weights(plan, path)
    start = plan.options.snapshot
    if start is not None:
        with noted(problems):
            notes.append(_starting_point(start, plan.job.train_net, plan.solver.max_iter))
    folder = plan.options.run_dir
    if folder is not None and (start is not None or not plan.options.moved):
        with noted(problems):
            refuse_used(folder)
    with noted(problems):
        _refuse_overwriting(plan)
    place = folder or Path.cwd()
    with noted(problems):
        _check_writable(place)
    found = _estimate(plan, problems, notes)
    seen = _findings(plan, facts, problems, notes)
    disk = None
    with noted(problems):
        disk = _disk(plan, place, found)
        notes += _room(disk, place)
    if found is not None:
        check_memory(plan, found, problems, notes)
    notes += gpu_notes(plan.devices)
    return replace(
        plan, disk=disk, estimate=found, findings=seen, notes=tuple(notes), problems=tuple(problems)
    )


def _refuse_overwriting(plan: Plan) -> None:
    """Layers that write files begin them anew, whatever stands there.

    Raises:
        OutputExistsError: something else than an earlier output.
    """
    for net in plan.job.nets.values():
        for layer in net.layer:
            path = Path(layer.hdf5_output_param.file_name)
            if layer.type == "HDF5Output" and path.exists() and not is_hdf5(path):
                raise OutputExistsError(
                    f"layer {layer.name} would write over {path}, which is no HDF5 file",
                    "another file_name in its hdf5_output_param, or move the file away",
                )


def _estimate(plan: Plan, problems: list[Irv2CaffeError], notes: list[str]) -> Estimate | None:
    """What the run takes; a net that Caffe would refuse is a problem."""
    if problems:
        return None  # without databases shapes are not known
    shared_by = plan.devices.count if plan.flavor == "nvcaffe" else 1
    try:
        return estimate(plan.job, plan.databases, shared_by=shared_by)
    except NetError as error:
        is_foreign = "unknown layer type" in error.message
        if is_foreign or plan.options.ignore_findings:
            notes.append(f"warning: {error.message}")
        else:
            problems.append(error)
        return None


def _findings(
    plan: Plan, facts: Databases, problems: list[Irv2CaffeError], notes: list[str]
) -> tuple[Finding, ...]:
    """What check finds: its errors keep the run from its start."""
    if not plan.job.nets:
        return ()
    try:
        seen = look(plan, facts)
    except Irv2CaffeError as error:
        if not problems:  # else it has stumbled over one of them
            notes.append(f"warning: irv2caffe check fails: {error.message}")
        return ()
    errors = [finding for finding in seen if is_error(finding)]
    if errors and not plan.options.ignore_findings:
        # It says more of a net that Caffe refuses than the error does that stands there by now.
        problems[:] = [error for error in problems if not isinstance(error, NetError)]
        problems += map(problem, errors)
    return seen


def _notes(plan: Plan) -> list[str]:
    """What a person should know before the start, one line each."""
    solver, lines = plan.solver, []
    written = next(iter(plan.job.data_layers("TRAIN")), None)
    if written is not None and plan.flavor == "nvcaffe" and plan.devices.count > 1:
        lines.append(
            f"NVCaffe divides batch_size {plan.batch_size} among its {plan.devices.count} GPUs"
        )
    if plan.num_val and plan.tested and plan.tested != plan.num_val:
        lines.append(
            f"warning: every test reads {plan.tested:,} images, the validation database has "
            f"{plan.num_val:,}: test_iter x batch should be equal to it"
        )
    if solver.test_interval and solver.max_iter % solver.test_interval:
        lines.append(
            f"warning: max_iter {solver.max_iter:,} is no multiple of test_interval "
            f"{solver.test_interval:,}: the end will not be tested"
        )
    if plan.can is not None and plan.can.gpu is None and plan.gpus:
        lines.append("whether this Caffe was built for GPUs shows when it starts")
    lines += _changes(plan)
    return lines


def _changes(plan: Plan) -> list[str]:
    """What the run's own copy of the solver says otherwise, so that the run can be kept alive."""
    solver, lines = plan.solver, []
    if not solver.display:
        lines.append("display: 0 would leave the log silent: 20 is taken")
    if not solver.snapshot_after_train:
        lines.append("snapshot_after_train: false would lose the end: true is taken")
    if solver.snapshot_format != type(solver).BINARYPROTO:
        lines.append("snapshot_format: HDF5 cannot be verified here: BINARYPROTO is taken")
    return lines


def _weights(plan: Plan, path: Path) -> list[str]:
    """What is wrong with a model to start from, and what of it the net takes.

    Raises:
        InputError: not a model, or layers of one name have other shapes.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file", "--weights takes a .caffemodel")
    if "," in str(path):
        raise InputError(f"--weights {path}: Caffe takes a comma for the next file", "rename it")
    try:
        outline = read_model_header(path)
    except FormatError as error:
        hint = error.hint if "--" in error.hint else "it takes a whole .caffemodel"
        raise InputError(f"--weights {error.message}", hint) from error
    if not plan.job.nets:
        return []
    theirs = {layer.definition.name for layer in outline.layers if layer.shapes}
    ours = {layer.name for layer in plan.job.train_net.layer}
    if not theirs & ours:
        raise InputError(
            f"--weights {path}: no layer of it has a name of this net",
            "Caffe takes weights by the names of layers; irv2caffe summary shows them",
        )
    differences = [] if outline.is_old else net_differences(outline.layers, plan.job.train_net)
    changed = [line for line in differences if "changed" in line]
    lines = [f"weights of {len(theirs & ours)} layers come from {path}"]
    if changed:
        lines.append(f"warning: {path} differs from the net: {'; '.join(changed[:3])}")
    return lines


def _starting_point(pair: Pair, net: Any, max_iter: int) -> str:
    """Checks that a new run can go on from a pair; returns what to say of it.

    Raises:
        InputError: it is of another net.
        UsageError: nothing is left to do.
    """
    try:
        refuse_other_net(pair, net)
    except InputError as error:
        raise InputError(
            error.message,
            "--solver names the one it was trained with; --weights starts anew from a model",
        ) from error
    if 0 < max_iter <= pair.iteration:
        raise UsageError(
            f"{pair.state} is of iteration {pair.iteration:,}, and max_iter is {max_iter:,}: "
            "nothing is left to do",
            "--epochs makes the run longer, and so does another --solver",
        )
    return (
        f"goes on from iteration {pair.iteration:,}: {pair.state}, which is copied; Caffe reads a "
        "database from its first record again"
    )


def _check_writable(folder: Path) -> None:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(
            f"{place}: no run folder can be made or written there",
            "--run-dir names a folder that you may write",
        )


def _disk(plan: Plan, place: Path, found: Estimate | None) -> Disk:
    keep = keep_policy(plan)
    kept = keep.newest
    for interval in (keep.every, keep.scheduled):
        if interval:
            kept = max(kept, keep.newest - 1 + int(plan.solver.max_iter / interval))
    start = plan.options.snapshot
    sizes = [pair.num_bytes for pair in (*pairs(place / "snapshots"), *([start] if start else ()))]
    expected = found.pair_bytes if found is not None else None
    return Disk(max(sizes, default=expected), kept, system.free_bytes(place))


def _room(disk: Disk, place: Path) -> list[str]:
    """Whether snapshots have room.

    Raises:
        OutputError: not even for two.
    """
    if disk.pair_bytes is None:
        return []
    if disk.free_bytes < 2 * disk.pair_bytes:
        raise OutputError(
            f"{place}: {format_bytes(disk.free_bytes)} are free; a snapshot takes "
            f"{format_bytes(disk.pair_bytes)}, and a second one before the first can go",
            "make room, or name a folder on another disk with --run-dir",
        )
    need = disk.pair_bytes * (disk.num_kept + 1)
    if disk.free_bytes < need:
        kept = f"warning: {disk.num_kept} snapshots will take {format_bytes(need)}"
        return [f"{kept}, {format_bytes(disk.free_bytes)} are free: --keep-snapshots 2 keeps fewer"]
    return []
