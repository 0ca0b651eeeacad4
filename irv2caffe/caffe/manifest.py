"""What install-caffe wrote down about a Caffe: ``irv2caffe-runtime.json`` in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.system import read_json_object

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.caffe.gpu_host import Host

_CONTAINER = "in a container, start it with access to the GPUs (docker run --gpus all)"
_REBUILD = "irv2caffe install-caffe --cuda --force"
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

    def fault(self, host: Host) -> tuple[str, str] | None:
        """Returns why this build cannot use a machine's GPUs, and what to do; None if it can.

        CUDA reports the first three as one error, 35.
        """
        if host.driver is None:
            return "there is no NVIDIA driver", f"install it; {_CONTAINER}"
        if host.driver[0] < self.min_driver:
            what = f"the NVIDIA driver {host.driver_text} is too old for this Caffe"
            way_out = f"update it, or build Caffe for it: {_REBUILD}"
            return f"{what}, which needs {self.min_driver}", way_out
        if not host.archs:
            return (
                f"the NVIDIA driver {host.driver_text} shows no GPU",
                f"nvidia-smi tells why; after an update of the driver, restart; {_CONTAINER}",
            )
        if not any(map(self._has_code_for, host.archs)):
            shown = ", ".join(f"{arch // 10}.{arch % 10}" for arch in host.archs)
            return f"this Caffe holds no code for GPUs of compute capability {shown}", _REBUILD
        return None

    def _has_code_for(self, arch: int) -> bool:
        """Machine code runs on later GPUs of the same generation, PTX on all later ones."""
        kinds = [name.partition("_") for name in self.code]
        return any(
            int(number) <= arch and (kind == "compute" or int(number) // 10 == arch // 10)
            for kind, _, number in kinds
            if number.isdecimal()
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
