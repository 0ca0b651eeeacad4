"""Chooses the GPUs of a training: --gpus against the machine's GPUs and Caffe's build."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe import system
from irv2caffe.config.gpus import NO_GPU_HELP, parse_gpus
from irv2caffe.errors import UsageError
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from irv2caffe.caffe.capability import Capability
    from irv2caffe.train.engines.engine import Engine

_BUSY_SHARE = 0.10
_PROC = Path("/proc/driver/nvidia/gpus")
_DRIVERS = (_PROC, Path("/dev/nvidiactl"), Path("/dev/dxg"))  # the last one in Windows' Linux


@dataclass(frozen=True)
class Devices:
    """Where the training runs.

    Attributes:
        numbers: GPU numbers; empty for the CPU.
        gpus: facts about these GPUs; empty if unknown.
        names: identifiers for docker and nvidia-smi, which ignore CUDA_VISIBLE_DEVICES.
        why: why ``--gpus auto`` chose them; else empty.
        workers: processes on the CPU.
        machines: machines that train together, each with as many devices.
    """

    numbers: tuple[int, ...] = ()
    gpus: tuple[system.Gpu, ...] = ()
    names: tuple[str, ...] = ()
    why: str = ""
    workers: int = 1
    machines: int = 1

    @property
    def argument(self) -> str:
        """The value of Caffe's ``-gpu``, such as ``0,1``; empty for the CPU."""
        return ",".join(map(str, self.numbers))

    @property
    def uuids(self) -> tuple[str, ...] | None:
        """The UUIDs of these GPUs; empty if unknown, None for the CPU."""
        return tuple(gpu.uuid for gpu in self.gpus) if self.numbers else None

    @property
    def count(self) -> int:
        """Number of batches that are computed at the same time; 1 for the CPU."""
        return (len(self.numbers) or self.workers) * self.machines

    def text(self) -> str:
        """The devices for display."""
        if self.numbers:
            names = {gpu.name for gpu in self.gpus}
            text = f"GPU {self.argument}" + (f" ({', '.join(sorted(names))})" if names else "")
        else:
            text = "CPU" if self.workers == 1 else f"CPU, {self.workers} processes"
        if self.machines > 1:
            text += f", on each of {self.machines} machines"
        return text + (f": {self.why}" if self.why else "")


def choose(gpus: str, engine: Engine, can: Capability | None) -> Devices:
    """The devices for ``--gpus``.

    Args:
        gpus: ``auto``, ``none``, ``all`` or numbers ``0,1``.
        engine: the program that trains.
        can: its capabilities, or None if unknown.

    Raises:
        UsageError: another value, no such GPU, or an engine that cannot use it.
    """
    found = _chosen(gpus, engine, can)
    return replace(found, machines=engine.machines, workers=engine.workers)


def _chosen(gpus: str, engine: Engine, can: Capability | None) -> Devices:
    if gpus == "none":
        return Devices()
    if gpus == "auto":
        return _automatic(engine, can)
    given = () if gpus == "all" else parse_gpus(gpus, words="auto, all, none")
    if can is not None and can.gpu is False:
        if not any_gpu():
            raise UsageError(f"--gpus {gpus}: no GPU was found", NO_GPU_HELP)
        raise UsageError(
            f"--gpus {gpus}: {engine.title} is {engine.no_gpu}",
            f"{engine.gpu_help}; --gpus none trains on the CPU",
        )
    there = system.visible_gpus()
    numbers = _all(there) if gpus == "all" else given
    if there is not None:
        missing = [number for number in numbers if number >= len(there)]
        if missing:
            known = ", ".join(str(number) for number in range(len(there))) or "none"
            raise UsageError(
                f"--gpus {gpus}: there is no GPU {missing[0]}", f"GPUs of this machine: {known}"
            )
    if can is not None and can.several_gpus is False and len(numbers) > 1:
        raise UsageError(
            f"--gpus {gpus}: {engine.title} was built without NCCL and trains on one GPU only",
            f"--gpus {numbers[0]} trains on one",
        )
    if there:
        chosen = tuple(there[number] for number in numbers)
        return Devices(numbers, chosen, tuple(gpu.uuid for gpu in chosen))
    return Devices(numbers, names=_visible_names(gpus, numbers))


def _automatic(engine: Engine, can: Capability | None) -> Devices:
    """The free GPUs, if what trains can use them; else the CPU."""
    there = system.visible_gpus() or []
    if not there:
        return Devices(why="this machine has no GPU")
    free = free_gpus(there)
    busy = ", ".join(str(number) for number in range(len(there)) if number not in free)
    if not free:
        return Devices(why=f"GPU {busy} is in use; --gpus {busy} takes it all the same")
    named = f"GPU {', '.join(map(str, free))}"
    if can is None or not can.gpu:
        no_gpu = engine.no_gpu if can is not None and can.gpu is False else "not known to use GPUs"
        return Devices(why=f"{named} is free, but {engine.title} is {no_gpu}; {engine.gpu_help}")
    left_out = [f"GPU {busy} is in use"] if busy else []
    if len(free) > 1 and not can.several_gpus:
        left_out.append(f"{engine.title} takes one of {named}")
        free = free[:1]
    chosen = tuple(there[number] for number in free)
    why = "; ".join(["free", *left_out])
    return Devices(free, chosen, tuple(gpu.uuid for gpu in chosen), why)


def any_gpu() -> bool:
    """Whether this machine may have a GPU; also true where only the driver knows."""
    there = system.visible_gpus()
    return bool(there) if there is not None else any(path.exists() for path in _DRIVERS)


def free_gpus(there: list[system.Gpu]) -> tuple[int, ...]:
    """The numbers of the GPUs that no program uses."""
    return tuple(number for number, gpu in enumerate(there) if not _is_busy(gpu))


def _is_busy(gpu: system.Gpu) -> bool:
    used = gpu.total_bytes - gpu.free_bytes
    return bool(gpu.num_processes) or used > _BUSY_SHARE * gpu.total_bytes


def _visible_names(gpus: str, numbers: tuple[int, ...]) -> tuple[str, ...]:
    """The entries of CUDA_VISIBLE_DEVICES that the numbers of --gpus index."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return tuple(map(str, numbers))
    visible = _split(wanted)
    missing = [number for number in numbers if number >= len(visible)]
    if missing:
        raise UsageError(
            f"--gpus {gpus}: there is no GPU {missing[0]}",
            f"CUDA_VISIBLE_DEVICES={wanted} shows {len(visible)}, counted from 0",
        )
    return tuple(visible[number] for number in numbers)


def _split(visible_devices: str) -> list[str]:
    return [part.strip() for part in visible_devices.split(",") if part.strip()]


def _all(there: list[system.Gpu] | None) -> tuple[int, ...]:
    if there is not None:
        count = len(there)
    else:
        wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
        count = len(list(_PROC.iterdir())) if _PROC.is_dir() else 0
        if wanted is not None:
            count = min(count, len(_split(wanted)))
    if count == 0:
        raise UsageError("--gpus all: no GPU was found", NO_GPU_HELP)
    return tuple(range(count))


def notes(devices: Devices) -> list[str]:
    """Warnings for GPUs that other programs use."""
    lines = []
    for number, gpu in zip(devices.numbers, devices.gpus, strict=False):
        used = gpu.total_bytes - gpu.free_bytes
        if _is_busy(gpu):
            lines.append(
                f"warning: GPU {number} is in use: {format_bytes(used)} of "
                f"{format_bytes(gpu.total_bytes)} are taken"
            )
    return lines
