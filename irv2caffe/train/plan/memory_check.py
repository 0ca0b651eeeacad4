"""Compares the memory that a training needs with the free memory; suggests smaller batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.errors import InputError, Irv2CaffeError
from irv2caffe.train.plan.memory_room import memory_room
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from irv2caffe.train.plan.estimate import Estimate
    from irv2caffe.train.plan.plan import Plan

_NEAR = 0.8
_TESTS_AT_MOST = 0.25  # share of the memory for test nets whose batch is reduced
_MAX_TRIED = 100_000
_ANYWAY = "--ignore-findings tries anyway"


def check_memory(
    plan: Plan, found: Estimate, problems: list[Irv2CaffeError], notes: list[str]
) -> None:
    """Adds an error for a device with too little memory, a note for one with barely enough.

    The free memory of GPUs is only known with nvidia-ml-py.
    """
    places = [
        (f"GPU {number}", "free", gpu.free_bytes, found.on_device(place, plan.flavor), place == 0)
        for place, (number, gpu) in enumerate(
            zip(plan.devices.numbers, plan.devices.gpus, strict=False)
        )
    ]
    if not plan.gpus:
        room = memory_room()
        # A snapshot needs a second copy of the model in memory (Net::ToProto).
        need = found.on_device(0, plan.flavor) + found.model_bytes + _of_processes(plan, found)
        places = [(room.where, room.how, room.num_bytes, need, True)]
    for where, how, there, need, tests in places:
        also = f" ({format_bytes(found.test_bytes)} of it for the tests)" if tests else ""
        has, takes = format_bytes(there), format_bytes(need)
        what = f"{where} has {has} {how}, the training takes about {takes}{also}"
        if need > there and not plan.options.ignore_findings:
            besides = 0 if plan.gpus else found.model_bytes + _of_processes(plan, found)
            hint = _smaller_batches(plan, found, int(_NEAR * there) - besides, tests=tests)
            problems.append(InputError(what, f"{hint}; {_ANYWAY}"))
        elif need > _NEAR * there:
            notes.append(f"warning: {what}")


def _of_processes(plan: Plan, found: Estimate) -> int:
    """Memory on the CPU of the program itself, and of all processes but the first."""
    workers = plan.engine.workers
    return workers * plan.engine.base_bytes + (workers - 1) * found.train_bytes


def _smaller_batches(plan: Plan, found: Estimate, there: int, *, tests: bool) -> str:
    """Hint with batch sizes that fit into ``there`` bytes, with as many images per update."""
    batch, test_batch = plan.batch_size, plan.test_batch
    room = there - (found.test_bytes if tests else 0)
    given = []
    if tests and found.train_bytes - (batch - 1) * found.train_image_bytes > room:
        fewer = _largest_batch(
            plan.num_val or 0,
            found.test_bytes,
            found.test_image_bytes,
            test_batch,
            int(_TESTS_AT_MOST * there),
        )
        if fewer:
            given = [f"--test-batch-size {fewer}"]
            room += (test_batch - fewer) * found.test_image_bytes
    whole = batch * int(plan.solver.iter_size)
    fits = _largest_batch(whole, found.train_bytes, found.train_image_bytes, batch, room)
    if not fits or plan.flavor == "nvcaffe":  # NVCaffe divides a batch among its GPUs
        return "use a smaller --batch-size with a larger --iter-size, or a smaller net"
    if fits < batch:
        given = [f"--batch-size {fits} --iter-size {whole // fits}", *given]
    return f"{' '.join(given)} would fit, with as many images per update"


def _largest_batch(whole: int, need: int, image_bytes: int, batch: int, room: int) -> int:
    """The largest batch up to ``batch`` that divides ``whole`` and fits into ``room``; else 0."""
    if image_bytes < 1:
        return batch if need <= room else 0
    most = min(batch, batch - -(-(need - room) // image_bytes))
    return next((n for n in range(most, max(0, most - _MAX_TRIED), -1) if whole % n == 0), 0)
