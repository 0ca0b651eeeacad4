"""What install-caffe wrote down about a Caffe: ``irv2caffe-runtime.json`` in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.system import read_json_object

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "irv2caffe-runtime.json"


@dataclass(frozen=True)
class GpuBuild:
    """What a Caffe made by ``install-caffe --cuda`` was built for.

    Attributes:
        cuda: version of CUDA, such as ``13.0``.
        code: GPU code in it, such as ``("compute_90", "sm_80", "sm_90")``.
        min_driver: lowest major version of the NVIDIA driver.
    """

    cuda: str
    code: tuple[str, ...]
    min_driver: int

    def text(self) -> str:
        """Returns a description for the user."""
        machine = [name[3:] for name in self.code if name.startswith("sm_")]
        shown = ", ".join(f"{arch[:-1]}.{arch[-1]}" for arch in machine)
        return (
            f"CUDA {self.cuda} (driver {self.min_driver} or newer), NCCL, without cuDNN, for "
            f"compute capability {shown} and newer"
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the contents of the manifest; empty if there is none."""
    return read_json_object(folder / MANIFEST)


def gpu_build(folder: Path) -> GpuBuild | None:
    """Returns what the Caffe in a folder was built for; None if it is no build for GPUs."""
    told = read_manifest(folder).get("gpu")
    if not isinstance(told, dict):
        return None
    try:
        return GpuBuild(
            str(told["cuda"]), tuple(str(name) for name in told["code"]), int(told["min_driver"])
        )
    except (KeyError, TypeError, ValueError):
        return None
