"""Chooses the GPUs of a training: --gpus against the machine's GPUs and Caffe's build."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe import system
from irv2caffe.config import parse_gpus
from irv2caffe.errors import UsageError
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from irv2caffe.caffe.capability import Capability

_BUSY_SHARE = 0.10
_PROC = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Devices:
    """Where the training runs.

    Attributes:
        numbers: GPU numbers; empty for the CPU.
        gpus: facts about these GPUs; empty if unknown.
        names: identifiers for docker and nvidia-smi, which ignore CUDA_VISIBLE_DEVICES.
    """

    numbers: tuple[int, ...] = ()
    gpus: tuple[system.Gpu, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def argument(self) -> str:
        """The value of Caffe's ``-gpu``, such as ``0,1``; empty for the CPU."""
        return ",".join(map(str, self.numbers))

    @property
    def count(self) -> int:
        """Number of devices; 1 for the CPU."""
        return max(1, len(self.numbers))

    def text(self) -> str:
        """The devices for display."""
        if not self.numbers:
            return "CPU"
        names = {gpu.name for gpu in self.gpus}
        return f"GPU {self.argument}" + (f" ({', '.join(sorted(names))})" if names else "")


def choose(gpus: str, can: Capability | None) -> Devices:
    """The devices for ``--gpus``.

    Args:
        gpus: ``none``, ``all`` or numbers ``0,1``.
        can: Caffe's capabilities, or None if unknown.

    Raises:
        UsageError: another value, no such GPU, or a Caffe that cannot use it.
    """
    if gpus == "none":
        return Devices()
    given = () if gpus == "all" else parse_gpus(gpus, words="all, none")
    if can is not None and can.gpu is False:
        raise UsageError(
            f"--gpus {gpus}: this Caffe was built without GPU support",
            "--gpus none trains on the CPU; --caffe, CAFFE_ROOT or --docker name another Caffe",
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
            f"--gpus {gpus}: this Caffe was built without NCCL and trains on one GPU only",
            f"--gpus {numbers[0]} trains on one",
        )
    if there:
        chosen = tuple(there[number] for number in numbers)
        return Devices(numbers, chosen, tuple(gpu.uuid for gpu in chosen))
    return Devices(numbers, names=_visible_names(gpus, numbers))


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
        raise UsageError(
            "--gpus all: no GPU was found",
            "nvidia-smi lists the GPUs if a driver is installed; --gpus none trains on the CPU",
        )
    return tuple(range(count))


def notes(devices: Devices) -> list[str]:
    """Warnings for GPUs that other programs use."""
    lines = []
    for number, gpu in zip(devices.numbers, devices.gpus, strict=False):
        used = gpu.total_bytes - gpu.free_bytes
        if gpu.num_processes or used > _BUSY_SHARE * gpu.total_bytes:
            lines.append(
                f"warning: GPU {number} is in use: {format_bytes(used)} of "
                f"{format_bytes(gpu.total_bytes)} are taken"
            )
    return lines
