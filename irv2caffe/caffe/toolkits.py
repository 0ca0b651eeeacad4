"""The versions of CUDA that Caffe is built with, and what they support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Toolkit:
    """What a version of CUDA supports; as NVIDIA documents it, and nvcc lists it.

    Attributes:
        name: full version.
        min_driver: lowest major version of the driver.
        ptx_driver: the same where the driver compiles PTX (NVIDIA's CUDA Compatibility).
        archs: compute capabilities times ten that nvcc makes code for.
    """

    name: str
    min_driver: int
    ptx_driver: int
    archs: tuple[int, ...]


TOOLKITS = {
    12: Toolkit("12.4", 525, 550, (50, 52, 60, 61, 70, 75, 80, 86, 89, 90)),
    13: Toolkit("13.0", 580, 580, (75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121)),
}


def capabilities(archs: Iterable[int]) -> str:
    """Returns compute capabilities for the user, such as ``8.0, 9.0``."""
    return ", ".join(f"{arch // 10}.{arch % 10}" for arch in archs)
