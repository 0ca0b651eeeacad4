"""Formats a plan as text and JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from irv2caffe.train.plan.memory_room import memory_room
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from irv2caffe.train.plan.databases import DatabaseUse
    from irv2caffe.train.plan.estimate import Estimate
    from irv2caffe.train.plan.plan import Plan


def sums(plan: Plan) -> str:
    """Iterations, images and epochs in one line."""
    line = f"{plan.solver.max_iter:,} iterations x {plan.effective_batch} images"
    if plan.epochs is not None:
        line += f" = {plan.epochs:.2f} epochs of {plan.num_train:,} images"
    return line


def rows(plan: Plan) -> list[tuple[str, str]]:
    """The plan as rows of (name, text)."""
    found = [
        (
            "engine",
            f"{plan.engine.name}: {plan.engine.why}" if plan.engine.why else plan.engine.name,
        ),
        ("program", f"{plan.engine.program} ({plan.engine.reason})"),
        ("build", plan.engine.build(plan.can) if plan.can is not None else "not known"),
        ("devices", plan.devices.text()),
        ("solver", plan.options.origin or str(plan.job.path)),
    ]
    start = plan.options.snapshot
    if start is not None:
        found.append(("continues from", f"iteration {start.iteration:,}: {start.state}"))
        found.append(("run folder", str(plan.options.run_dir or "runs/DATE-TIME, a new one")))
    found += [("net", f"{name}: {len(net.layer)} layers") for name, net in plan.job.nets.items()]
    found += [(f"{use.phase.lower()} data", _database(use)) for use in plan.databases]
    found.append(("effective batch", _batch(plan)))
    if plan.iterations_per_epoch is not None:
        per_epoch = f"{plan.iterations_per_epoch:,.2f} iterations per epoch"
        found.append(("epochs", f"{sums(plan)}, {per_epoch}"))
    else:
        found.append(("iterations", sums(plan)))
    found.append(("tests", _tests(plan)))
    found.append(("snapshots", _snapshots(plan)))
    if plan.estimate is not None:
        found.append(("memory", _memory(plan, plan.estimate)))
    return found


def _database(use: DatabaseUse) -> str:
    found = use.database
    num_records = found.num_records or 0
    crop = f", crop {use.crop}" if use.crop else ""
    read = []
    if found.num_looked_at < num_records:
        read.append(f"labels of {found.num_looked_at:,} looked at")
    if found.encoded and found.num_decoded < num_records:
        read.append(f"{found.num_decoded:,} decoded")
    sample = f" ({', '.join(read)})" if read else ""
    shape = "x".join(map(str, found.shape)) + (" (encoded)" if found.encoded else "")
    return (
        f"{use.source}: {num_records:,} images {shape}, labels up to {found.highest_label}"
        f"{crop}{sample}"
    )


def _batch(plan: Plan) -> str:
    size = plan.solver.iter_size
    if plan.flavor == "nvcaffe":
        return (
            f"{plan.effective_batch} = batch_size {plan.batch_size} shared by "
            f"{plan.devices.count} GPU(s) x iter_size {size}"
        )
    per = "GPU(s)" if plan.gpus else "CPU" if plan.devices.count == 1 else "CPU processes"
    return (
        f"{plan.effective_batch} = batch_size {max(1, plan.batch_size)} x {plan.devices.count} "
        f"{per} x iter_size {size}"
    )


def _tests(plan: Plan) -> str:
    solver = plan.solver
    if not solver.test_interval or not solver.test_iter:
        return "none"
    text = f"every {solver.test_interval:,} iterations"
    if plan.iterations_per_epoch:
        text += f" ({solver.test_interval / plan.iterations_per_epoch:.2f} epochs)"
    if plan.tested:
        of = f" of {plan.num_val:,}" if plan.num_val else ""
        text += f", {plan.tested:,}{of} images each"
    return text


def _snapshots(plan: Plan) -> str:
    keep, disk = plan.keep, plan.disk
    text = f"every {plan.solver.snapshot:,} iterations" if plan.solver.snapshot else "on request"
    text += f"; kept: the newest {keep.newest}"
    if keep.every and plan.iterations_per_epoch:
        text += f", one every {keep.every / plan.iterations_per_epoch:g} epochs"
    if keep.scheduled:
        text += ", all of the solver's schedule"
    if plan.criterion is not None:
        text += ", the best"
    if disk is not None:
        each = "" if disk.pair_bytes is None else f", {format_bytes(disk.pair_bytes)} each"
        text += f": about {disk.num_kept} of them{each}; {format_bytes(disk.free_bytes)} are free"
    return text


def _memory(plan: Plan, estimate: Estimate) -> str:
    text = f"about {format_bytes(estimate.train_bytes)} to train"
    if estimate.test_bytes:
        text += f" and {format_bytes(estimate.test_bytes)} to test"
    free = [format_bytes(gpu.free_bytes) for gpu in plan.devices.gpus]
    if not plan.gpus:
        room = memory_room()
        return f"{text}; {room.where} has {format_bytes(room.num_bytes)} {room.how}"
    return text + (f"; free on the GPUs: {', '.join(free)}" if free else "")


def as_dict(plan: Plan) -> dict[str, Any]:
    """The plan for JSON."""
    can = plan.can
    return {
        "engine": {
            "name": plan.engine.name,
            "why": plan.engine.why,
            "program": plan.engine.program,
            "reason": plan.engine.reason,
            "options": plan.engine.options,
            "version": can.version if can else None,
            "build": plan.engine.build(can) if can else None,
            "flavor": plan.flavor,
            "gpu": can.gpu if can else None,
            "several_gpus": can.several_gpus if can else None,
        },
        "gpus": list(plan.devices.numbers),
        "solver": plan.options.origin or str(plan.job.path),
        "snapshot": None if plan.options.snapshot is None else str(plan.options.snapshot.state),
        "from_iteration": plan.options.snapshot.iteration if plan.options.snapshot else 0,
        "nets": {name: len(net.layer) for name, net in plan.job.nets.items()},
        "databases": [
            {
                "layer": use.layer,
                "phase": use.phase,
                "source": str(use.source),
                "batch_size": use.batch_size,
                "crop": use.crop,
                "num_records": use.database.num_records,
                "shape": list(use.database.shape),
                "max_label": use.database.highest_label,
            }
            for use in plan.databases
        ],
        "batch_size": plan.batch_size,
        "iter_size": plan.solver.iter_size,
        "effective_batch": plan.effective_batch,
        "max_iter": plan.solver.max_iter,
        "iterations_per_epoch": plan.iterations_per_epoch,
        "epochs": plan.epochs,
        "images_per_test": plan.tested or None,
        "snapshot_bytes": plan.disk.pair_bytes if plan.disk else None,
        "num_snapshots_kept": plan.disk.num_kept if plan.disk else None,
        "memory_bytes": asdict(plan.estimate) if plan.estimate else None,
        "free_bytes": plan.disk.free_bytes if plan.disk else None,
        "findings": [finding.as_dict() for finding in plan.findings],
        "notes": list(plan.notes),
        "problems": [{"what": p.message, "hint": p.hint} for p in plan.problems],
        "config": {
            value.name: {"value": value.value, "from": value.source} for value in plan.values
        },
    }
