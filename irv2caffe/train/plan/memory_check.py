"""Compares the memory that a training takes with what is free, and proposes smaller batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.errors import InputError, Irv2CaffeError
from irv2caffe.train.plan.memory_room import memory_room
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from irv2caffe.train.plan.estimate import Estimate
    from irv2caffe.train.plan.plan import Plan

_NEAR = 0.8
_TESTS_AT_MOST = 0.25  # of the room, where the tests do not fit as they are
_MAX_TRIED = 100_000
_ANYWAY = "--ignore-findings tries all the same"


def check_memory(
    plan: Plan, found: Estimate, problems: list[Irv2CaffeError], notes: list[str]
) -> None:
    """Adds an error where a device has too little memory, and a note where it has just enough.

    What a GPU has free is known with nvidia-ml-py only.
    """
    places = [
        (f"GPU {number}", "free", gpu.free_bytes, found.on_device(place, plan.flavor), place == 0)
        for place, (number, gpu) in enumerate(
            zip(plan.devices.numbers, plan.devices.gpus, strict=False)
        )
    ]
    if not plan.gpus:
        room = memory_room()
        # Besides, a model is copied into a message before it is written (Net::ToProto).
        need = found.on_device(0, plan.flavor) + found.model_bytes
        places = [(room.where, room.how, room.num_bytes, need, True)]
    for where, how, there, need, tests in places:
        also = f" ({format_bytes(found.test_bytes)} of it for the tests)" if tests else ""
        has, takes = format_bytes(there), format_bytes(need)
        what = f"{where} has {has} {how}, the training takes about {takes}{also}"
        if need > there and not plan.options.ignore_findings:
            besides = 0 if plan.gpus else found.model_bytes
            way_out = _way_out(plan, found, int(_NEAR * there) - besides, tests=tests)
            problems.append(InputError(what, f"{way_out}; {_ANYWAY}"))
        elif need > _NEAR * there:
            notes.append(f"warning: {what}")


def _way_out(plan: Plan, found: Estimate, there: int, *, tests: bool) -> str:
    """Batches that fit into so much, with the same number of images in an update and in a test."""
    batch, test_batch = plan.batch_size, plan.test_batch
    room = there - (found.test_bytes if tests else 0)
    given = []
    if tests and found.train_bytes - (batch - 1) * found.train_image_bytes > room:
        fewer = _largest(
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
    fits = _largest(whole, found.train_bytes, found.train_image_bytes, batch, room)
    if not fits or plan.flavor == "nvcaffe":  # which shares a batch among its GPUs
        return "a smaller --batch-size with a larger --iter-size takes less; so does a smaller net"
    if fits < batch:
        given = [f"--batch-size {fits} --iter-size {whole // fits}", *given]
    return f"{' '.join(given)} would fit, with as many images in an update as now"


def _largest(whole: int, takes: int, of_each: int, batch: int, room: int) -> int:
    """The largest batch, up to the one there is, that divides a number and has room; else 0."""
    if of_each < 1:
        return batch if takes <= room else 0
    most = min(batch, batch - -(-(takes - room) // of_each))
    return next((n for n in range(most, max(0, most - _MAX_TRIED), -1) if whole % n == 0), 0)
