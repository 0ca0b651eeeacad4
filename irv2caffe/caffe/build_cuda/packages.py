"""The packages that a build is made of, each pinned by version, size and SHA-256."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irv2caffe.caffe.build_cuda.variant import Variant

_PINS = Path(__file__).with_name("pins")


@dataclass(frozen=True)
class Package:
    """One file to download.

    Attributes:
        role: ``run`` for what the finished Caffe needs, ``build`` for what only the build needs,
            ``source`` for Caffe's source.
        size_bytes: length of the file.
        sha256: digest of the file.
        place: path below a Debian mirror, or ``name==version`` in the Python package index.
    """

    role: str
    size_bytes: int
    sha256: str
    place: str

    @property
    def is_wheel(self) -> bool:
        """Whether it comes from the Python package index."""
        return "==" in self.place

    @property
    def name(self) -> str:
        """Name of the downloaded file."""
        if self.is_wheel:
            return f"{self.place.replace('==', '-')}.whl"
        return self.place.rpartition("/")[2]


def debian_packages() -> tuple[Package, ...]:
    """Returns the packages of Debian 11, and Caffe's source."""
    return _read("debian11")


def cuda_packages(cuda: int) -> tuple[Package, ...]:
    """Returns NVIDIA's packages for a major version of CUDA."""
    return _read(f"cuda{cuda}")


def cudnn_packages(variant: Variant) -> tuple[Package, ...]:
    """Returns the packages of cuDNN; none for a build without it."""
    return _read(f"cudnn{variant.cuda}") if variant.cudnn else ()


def cudnn_version(variant: Variant) -> str | None:
    """Returns the version of cuDNN, such as ``9.24.0.43``; None for a build without it."""
    listed = cudnn_packages(variant)
    return listed[0].place.partition("==")[2] if listed else None


def nvidia_packages(variant: Variant) -> tuple[Package, ...]:
    """Returns NVIDIA's packages for a build."""
    return (*cuda_packages(variant.cuda), *cudnn_packages(variant))


def packages(variant: Variant) -> tuple[Package, ...]:
    """Returns everything that a build downloads."""
    return (*debian_packages(), *nvidia_packages(variant))


def digest(listed: tuple[Package, ...]) -> str:
    """Returns a short digest that changes with every package."""
    return hashlib.sha256("\n".join(package.sha256 for package in listed).encode()).hexdigest()[:16]


def _read(name: str) -> tuple[Package, ...]:
    lines = (_PINS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    rows = (line.split() for line in lines if not line.startswith("#"))
    return tuple(Package(role, int(size), sha256, place) for role, size, sha256, place in rows)
