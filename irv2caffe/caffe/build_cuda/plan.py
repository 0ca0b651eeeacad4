"""The plan of a GPU build: what is downloaded and compiled, where, and how long it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe import system
from irv2caffe.caffe.build_cuda.download import missing_packages
from irv2caffe.caffe.build_cuda.packages import cudnn_version, packages
from irv2caffe.caffe.build_cuda.pool import num_jobs
from irv2caffe.caffe.toolkits import TOOLKITS
from irv2caffe.errors import InstallError
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.caffe.build_cuda.variant import Variant

LICENSE = (
    "NVIDIA's packages are under the CUDA Toolkit End User License Agreement, which they contain; "
    "you download them from NVIDIA's releases, irv2caffe distributes none of them"
)
CUDNN_LICENSE = (
    "cuDNN is under NVIDIA's License Agreement for Software Development Kits with its supplement "
    "for cuDNN, which its package contains"
)
# Core seconds, from builds on two cores: C++ files, CUDA files, CUDA files for each architecture.
_CPP_S = 200.0
_CUDA_S = 50.0
_CUDA_PER_ARCH_S = 86.0
_UNPACK_S = 60.0
# Unpacked packages and objects (2.3 GB), and the finished Caffe (1.5 GB), with reserve.
_BUILD_BYTES = 2_500_000_000
_PREFIX_BYTES = 1_600_000_000
_CUDNN_BYTES = {12: 1_050_000_000, 13: 500_000_000}  # unpacked: 1.02 GB and 0.49 GB


@dataclass(frozen=True)
class Plan:
    """What install-caffe --cuda will do.

    Attributes:
        prefix: the folder of the finished Caffe.
        build_dir: the folder of downloads and of what is compiled.
        variant: what is built.
        mirrors: URLs of Debian mirrors.
        num_jobs: number of compilers that run at a time.
        download_bytes: what is still to be downloaded.
        num_downloads: number of these files.
        present_bytes: what was downloaded before.
    """

    prefix: Path
    build_dir: Path
    variant: Variant
    mirrors: tuple[str, ...]
    num_jobs: int
    download_bytes: int
    num_downloads: int
    present_bytes: int

    @property
    def downloads(self) -> Path:
        """The folder of the downloaded packages."""
        return self.build_dir / "downloads"

    @property
    def prefix_bytes(self) -> int:
        """Estimated size of the finished Caffe."""
        return _PREFIX_BYTES + self._cudnn_bytes

    @property
    def build_bytes(self) -> int:
        """Estimated size of the build folder, without the downloads."""
        return _BUILD_BYTES + self._cudnn_bytes

    @property
    def _cudnn_bytes(self) -> int:
        return _CUDNN_BYTES[self.variant.cuda] if self.variant.cudnn else 0

    @property
    def compile_s(self) -> float:
        """Estimated time to unpack and compile, in seconds."""
        num_archs = len(self.variant.archs) + 1  # PTX takes about as long
        core_s = _CPP_S + _CUDA_S + _CUDA_PER_ARCH_S * num_archs
        return _UNPACK_S + core_s / self.num_jobs

    def as_dict(self) -> dict[str, Any]:
        """Returns the values for JSON."""
        return {
            "prefix": str(self.prefix),
            "build_dir": str(self.build_dir),
            "cuda": TOOLKITS[self.variant.cuda].name,
            "cudnn": cudnn_version(self.variant),
            "archs": list(self.variant.archs),
            "mirrors": list(self.mirrors),
            "jobs": self.num_jobs,
            "downloads": self.num_downloads,
            "download_bytes": self.download_bytes,
            "present_bytes": self.present_bytes,
            "build_bytes": self.build_bytes,
            "prefix_bytes": self.prefix_bytes,
            "compile_s": round(self.compile_s),
        }

    def text(self) -> str:
        """Returns lines for the user."""
        kit = TOOLKITS[self.variant.cuda]
        archs = ", ".join(f"{arch // 10}.{arch % 10}" for arch in self.variant.archs)
        needed = format_bytes(self.build_bytes + self.download_bytes)
        there = f"{format_bytes(self.present_bytes)} are there already"
        minutes = self.compile_s / 60
        cudnn = cudnn_version(self.variant)
        parts = f"CUDA {kit.name}, cuDNN {cudnn} and" if cudnn else f"CUDA {kit.name} and"
        lines = [
            f"Caffe 1.0 with {parts} NCCL, for compute capability {archs} and newer",
            f"download  {format_bytes(self.download_bytes)} in {self.num_downloads} files; {there}",
            f"compile   about {minutes:.0f} min with {self.num_jobs} compilers at a time",
            f"disk      {needed} in {self.build_dir} while it builds",
            f"install   {format_bytes(self.prefix_bytes)} in {self.prefix}",
            f"license   {LICENSE}",
            *([f"          {CUDNN_LICENSE}"] if cudnn else []),
        ]
        return "\n".join(lines)


def make_plan(
    prefix: Path, build_dir: Path, variant: Variant, mirrors: tuple[str, ...], jobs: int | None
) -> Plan:
    """Returns the plan, after a look at what was downloaded before."""
    listed = packages(variant)
    missing = missing_packages(listed, build_dir / "downloads")
    to_load = sum(package.size_bytes for package in missing)
    return Plan(
        prefix=prefix,
        build_dir=build_dir,
        variant=variant,
        mirrors=mirrors,
        num_jobs=jobs or num_jobs(),
        download_bytes=to_load,
        num_downloads=len(missing),
        present_bytes=sum(package.size_bytes for package in listed) - to_load,
    )


def check_space(plan: Plan) -> None:
    """Refuses a disk that is too small.

    Raises:
        InstallError: too little space for the downloads, the build or the finished Caffe.
    """
    needed = {
        plan.build_dir: plan.build_bytes + plan.download_bytes,
        plan.prefix: plan.prefix_bytes,
    }
    if _device(plan.build_dir) == _device(plan.prefix):
        needed = {plan.build_dir: sum(needed.values())}
    for folder, size in needed.items():
        free = system.free_bytes(folder)
        if free < size:
            raise InstallError(
                f"{format_bytes(free)} are free for {folder}, {format_bytes(size)} are needed",
                "choose folders on another disk with --build-dir and --prefix",
            )


def _device(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return folder.stat().st_dev
