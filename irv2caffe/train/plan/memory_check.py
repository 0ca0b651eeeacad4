"""Compares the memory that a training needs with the free memory; suggests smaller batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.errors import InputError, Irv2CaffeError
from irv2caffe.train.plan.estimate import Estimate, estimate
from irv2caffe.train.plan.job import layer_batch
from irv2caffe.train.plan.memory_room import memory_room
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from irv2caffe.train.engines.engine import Engine
    from irv2caffe.train.plan.gpus import Devices
    from irv2caffe.train.plan.job import Job
    from irv2caffe.train.plan.plan import Plan

_NEAR = 0.8
_TESTS_AT_MOST = 0.25  # share of the memory for test nets whose batch is reduced
_FEWEST = 4  # images of a batch that BatchNorm should see
_MAX_TRIED = 100_000
_ANYWAY = "--ignore-findings tries anyway"


@dataclass(frozen=True)
class _Place:
    """A device and the memory that a training needs on it.

    Attributes:
        where: the device.
        how: the kind of limit, which follows the number of bytes in messages.
        there: the free bytes.
        need: the bytes that the training needs.
        besides: the part of ``need`` that no batch changes and no estimate of nets contains.
        tests: whether tests run on it.
    """

    where: str
    how: str
    there: int
    need: int
    besides: int
    tests: bool

    def text(self, found: Estimate) -> str:
        """What it has and what the training takes."""
        also = f" ({format_bytes(found.test_bytes)} of it for the tests)" if self.tests else ""
        has, takes = format_bytes(self.there), format_bytes(self.need)
        return f"{self.where} has {has} {self.how}, the training takes about {takes}{also}"


def check_memory(
    plan: Plan, found: Estimate, problems: list[Irv2CaffeError], notes: list[str]
) -> None:
    """Adds an error for a device with too little memory, a note for one with barely enough.

    The free memory of GPUs is only known with nvidia-ml-py.
    """
    for place in _places(plan.devices, plan.engine, plan.flavor, found):
        if place.need > place.there and not plan.options.ignore_findings:
            batches = _smaller_batches(
                found, place, plan.batch_size, int(plan.solver.iter_size), plan.test_batch,
                plan.num_val or 0,
            )  # fmt: skip
            hint = "use a smaller --batch-size with a larger --iter-size, or a smaller net"
            if batches is not None and plan.flavor != "nvcaffe":  # divides a batch among its GPUs
                flags = [f"--{name.replace('_', '-')} {n}" for name, n in batches.items()]
                hint = f"{' '.join(flags)} would fit, with as many images per update"
            problems.append(InputError(place.text(found), f"{hint}; {_ANYWAY}"))
        elif place.need > _NEAR * place.there:
            notes.append(f"warning: {place.text(found)}")


def fitting_batches(
    job: Job, devices: Devices, engine: Engine, flavor: str, num_val: int
) -> dict[str, tuple[int, str]]:
    """Smaller batches for a training that does not fit, with as many images per update.

    The learning rate of a recipe is made for its number of images per update, which stays. Batches
    below 4 are not taken, since BatchNorm has its statistics from each batch.

    Args:
        job: the solver and its nets.
        devices: that train.
        engine: that trains.
        flavor: ``bvlc``, or ``nvcaffe``, for which nothing is proposed.
        num_val: validation images.

    Returns:
        Options of build-net with the reason; empty where all fits, or nothing would.
    """
    found = estimate(job, ())
    places = [p for p in _places(devices, engine, flavor, found) if p.need > p.there]
    if not places or flavor == "nvcaffe":
        return {}
    place = min(places, key=lambda place: place.there - place.need)
    batch, test_batch = (
        next(layer_batch(layer) for layer in job.data_layers(phase)) for phase in ("TRAIN", "TEST")
    )
    fits = _smaller_batches(found, place, batch, job.solver.iter_size, test_batch, num_val)
    if fits is None or fits.get("batch_size", batch) < min(batch, _FEWEST):
        return {}
    why = f"{place.text(found)} with batches of {batch}"
    return {name: (value, why) for name, value in fits.items()}


def _places(devices: Devices, engine: Engine, flavor: str, found: Estimate) -> list[_Place]:
    if devices.numbers:
        gpus = enumerate(zip(devices.numbers, devices.gpus, strict=False))
        return [
            _Place(f"GPU {number}", "free", gpu.free_bytes, found.on_device(n, flavor), 0, n == 0)
            for n, (number, gpu) in gpus
        ]
    # The program itself, and all processes but the first; a snapshot needs a second copy of the
    # model in memory (Net::ToProto).
    processes = engine.workers * engine.base_bytes + (engine.workers - 1) * found.train_bytes
    besides = found.model_bytes + processes
    room = memory_room()
    need = found.on_device(0, flavor) + besides
    return [_Place(room.where, room.how, room.num_bytes, need, besides, tests=True)]


def _smaller_batches(
    found: Estimate, place: _Place, batch: int, iter_size: int, test_batch: int, num_val: int
) -> dict[str, int] | None:
    """Batch sizes that fit, with as many images per update; None where none does."""
    there = int(_NEAR * place.there) - place.besides
    room = there - (found.test_bytes if place.tests else 0)
    fewer = 0
    if place.tests and found.train_bytes - (batch - 1) * found.train_image_bytes > room:
        most = int(_TESTS_AT_MOST * there)
        images = found.test_image_bytes
        fewer = _largest_batch(num_val, found.test_bytes, images, test_batch, most)
        room += (test_batch - fewer) * images if fewer else 0
    whole = batch * iter_size
    fits = _largest_batch(whole, found.train_bytes, found.train_image_bytes, batch, room)
    if not fits:
        return None
    sizes = {"batch_size": fits, "iter_size": whole // fits} if fits < batch else {}
    return {**sizes, "test_batch_size": fewer} if fewer else sizes


def _largest_batch(whole: int, need: int, image_bytes: int, batch: int, room: int) -> int:
    """The largest batch up to ``batch`` that divides ``whole`` and fits into ``room``; else 0."""
    if image_bytes < 1:
        return batch if need <= room else 0
    most = min(batch, batch - -(-(need - room) // image_bytes))
    return next((n for n in range(most, max(0, most - _MAX_TRIED), -1) if whole % n == 0), 0)
