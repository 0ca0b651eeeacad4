"""Checks of a plan: findings, weights, snapshot, run folder, disk, memory, GPUs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe import system
from irv2caffe.errors import (
    InputError,
    Irv2CaffeError,
    NetError,
    OutputError,
    OutputExistsError,
    UsageError,
    first_of,
)
from irv2caffe.train.plan.criterion import check_criterion
from irv2caffe.train.plan.estimate import Estimate, estimate
from irv2caffe.train.plan.findings import job_findings, prevents_start, problem, stops
from irv2caffe.train.plan.gpus import notes as gpu_notes
from irv2caffe.train.plan.job import collected
from irv2caffe.train.plan.memory_check import check_memory
from irv2caffe.train.plan.plan import Disk, Plan
from irv2caffe.train.plan.start_weights import check_weights, frozen_fillers
from irv2caffe.train.run_dir.folders import refuse_used
from irv2caffe.train.run_dir.foreign_training import refuse_other_net
from irv2caffe.train.run_dir.hdf5_snapshots import is_hdf5
from irv2caffe.train.run_dir.snapshots import pairs
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from irv2caffe.check.finding import Finding
    from irv2caffe.data.inspect.database import Databases
    from irv2caffe.train.run_dir.snapshots import Pair


def check_plan(plan: Plan, databases: Databases, problems: list[Irv2CaffeError]) -> Plan:
    """Checks a plan; returns it with its disk, memory, findings, notes and problems.

    Args:
        plan: a plan without these values.
        databases: databases that are already read.
        problems: problems found so far; new ones are added.
    """
    notes = _notes(plan)
    for path in plan.options.weights:
        with collected(problems):
            notes += check_weights(plan, path)
    notes += frozen_fillers(plan)
    start, folder = plan.options.snapshot, plan.options.run_dir
    if start is not None:
        with collected(problems):
            notes.append(_starting_point(start, plan.job.train_net, plan.solver.max_iter))
    if folder is not None and (start is not None or not plan.options.moved):
        with collected(problems):
            refuse_used(folder)
    with collected(problems):
        _refuse_overwriting(plan)
    place = folder or Path.cwd()
    with collected(problems):
        _check_writable(place)
    with collected(problems):
        _refuse_unknown_layers(plan)
    with collected(problems):
        check_criterion(plan.options.best, plan.job)
    findings, errors = _findings(plan, databases, problems)
    found = None
    if not problems and not any(map(stops, findings)):  # without databases shapes are not known
        found = _estimate(plan, errors, notes)
    problems += errors
    disk = None
    with collected(problems):
        disk = _disk(plan, place, found)
        notes += _check_disk(disk, place)
    if found is not None:
        check_memory(plan, found, problems, notes)
    notes += gpu_notes(plan.devices)
    return replace(
        plan,
        disk=disk,
        estimate=found,
        findings=findings,
        notes=tuple(notes),
        problems=tuple(problems),
    )


def _refuse_overwriting(plan: Plan) -> None:
    """Refuses HDF5Output layers that would overwrite a file of another kind.

    Raises:
        OutputExistsError: the output path is a file that is not HDF5.
    """
    for net in plan.job.nets.values():
        for layer in net.layer:
            path = Path(layer.hdf5_output_param.file_name)
            if layer.type == "HDF5Output" and path.exists() and not is_hdf5(path):
                raise OutputExistsError(
                    f"layer {layer.name} would overwrite {path}, which is not an HDF5 file",
                    "set another file_name in its hdf5_output_param, or move the file away",
                )


def _refuse_unknown_layers(plan: Plan) -> None:
    """Lists the layers of types that the engine does not run.

    Raises:
        NetError: if there are any.
    """
    known = plan.engine.layer_types
    found = [
        f"{layer.name!r} ({layer.type})"
        for net in plan.job.nets.values()
        for layer in net.layer
        if known and layer.type not in known
    ]
    if found:
        raise NetError(
            f"{plan.engine.title} cannot run {first_of(found, 20)}",
            "train with Caffe itself: --engine caffe",
        )


def _findings(
    plan: Plan, databases: Databases, problems: list[Irv2CaffeError]
) -> tuple[tuple[Finding, ...], list[Irv2CaffeError]]:
    """The findings of check, and errors for those that prevent the start."""
    try:
        findings = job_findings(plan, databases)
    except Irv2CaffeError as error:
        return (), [error] if error.message not in {each.message for each in problems} else []
    return findings, [problem(each) for each in findings if prevents_start(each, plan)]


def _estimate(plan: Plan, errors: list[Irv2CaffeError], notes: list[str]) -> Estimate | None:
    """Estimates memory and disk; a net that Caffe refuses is an error, unless already found."""
    shared_by = plan.devices.count if plan.flavor == "nvcaffe" else 1
    try:
        return estimate(plan.job, plan.databases, shared_by=shared_by)
    except NetError as error:
        if "unknown layer type" in error.message or plan.options.ignore_findings:
            notes.append(f"warning: {error.message}")
        elif not errors:
            errors.append(error)
        return None


def _notes(plan: Plan) -> list[str]:
    """Notes on the run before it starts, one line each."""
    lines = []
    written = next(iter(plan.job.data_layers("TRAIN")), None)
    if written is not None and plan.flavor == "nvcaffe" and plan.devices.count > 1:
        lines.append(
            f"NVCaffe divides batch_size {plan.batch_size} among its {plan.devices.count} GPUs"
        )
    lines += [f"not as in Caffe: {change}" for change in plan.engine.changes]
    if plan.can is not None and plan.can.gpu is None and plan.gpus:
        lines.append("whether this Caffe was built for GPUs shows when it starts")
    lines += _changes(plan)
    return lines


def _changes(plan: Plan) -> list[str]:
    """Notes on solver fields that the run's copy overrides, so that no output is lost."""
    solver, lines = plan.solver, []
    if not solver.display:
        lines.append("display: 0 would log no loss; the run uses 20")
    if not solver.snapshot_after_train:
        lines.append("snapshot_after_train: false would lose the final weights; the run uses true")
    if solver.snapshot_format != type(solver).BINARYPROTO:
        lines.append("snapshot_format: HDF5 cannot be verified; the run uses BINARYPROTO")
    return lines


def _starting_point(pair: Pair, net: Any, max_iter: int) -> str:
    """Checks that a new run can continue from a snapshot; returns a note.

    Raises:
        InputError: the snapshot belongs to another net.
        UsageError: its iteration is max_iter or higher.
    """
    try:
        refuse_other_net(pair, net)
    except InputError as error:
        raise InputError(
            error.message,
            "give the solver it was trained with (--solver), or start a new training (--weights)",
        ) from error
    if 0 < max_iter <= pair.iteration:
        raise UsageError(
            f"{pair.state} is of iteration {pair.iteration:,}, and max_iter is {max_iter:,}: "
            "nothing is left to do",
            "train longer with --epochs or another --solver",
        )
    return (
        f"continues from iteration {pair.iteration:,}: {pair.state}, which is copied; databases "
        "are read from their first record again"
    )


def _check_writable(folder: Path) -> None:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(
            f"{place}: no permission to create or write a run folder there",
            "name a folder that you may write with --run-dir",
        )


def _disk(plan: Plan, place: Path, found: Estimate | None) -> Disk:
    keep = plan.keep
    kept = keep.newest
    for interval in (keep.every, keep.scheduled):
        if interval:
            kept = max(kept, keep.newest - 1 + int(plan.solver.max_iter / interval))
    start = plan.options.snapshot
    sizes = [pair.num_bytes for pair in (*pairs(place / "snapshots"), *([start] if start else ()))]
    expected = found.pair_bytes if found is not None else None
    kept += plan.criterion is not None
    return Disk(max(sizes, default=expected), kept, system.free_bytes(place))


def _check_disk(disk: Disk, place: Path) -> list[str]:
    """Checks the disk space for snapshots; returns a warning if it will run out.

    Raises:
        OutputError: fewer than two snapshots fit.
    """
    if disk.pair_bytes is None:
        return []
    if disk.free_bytes < 2 * disk.pair_bytes:
        raise OutputError(
            f"{place}: {format_bytes(disk.free_bytes)} are free; a snapshot takes "
            f"{format_bytes(disk.pair_bytes)}, and a second is written before the first is removed",
            "free some space, or name a folder on another disk with --run-dir",
        )
    need = disk.pair_bytes * (disk.num_kept + 1)
    if disk.free_bytes < need:
        kept = f"warning: {disk.num_kept} snapshots will take {format_bytes(need)}"
        return [f"{kept}, {format_bytes(disk.free_bytes)} are free: --keep-snapshots 2 keeps fewer"]
    return []
