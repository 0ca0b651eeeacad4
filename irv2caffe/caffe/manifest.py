"""What install-caffe wrote down about a Caffe: ``irv2caffe-runtime.json`` in its folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.caffe.toolkits import TOOLKITS, capabilities
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
        cudnn: version of cuDNN, such as ``9.24.0.43``; None if it was built without.
    """

    cuda: str
    code: tuple[str, ...]
    min_driver: int
    cudnn: str | None = None

    @property
    def archs(self) -> tuple[int, ...]:
        """Compute capabilities times ten for which there is machine code, such as ``(80, 90)``."""
        named = (name.removeprefix("sm_") for name in self.code if name.startswith("sm_"))
        return tuple(sorted(int(number) for number in named if number.isdecimal()))

    def text(self) -> str:
        """Returns a description for the user."""
        shown = capabilities(self.archs)
        cudnn = f"cuDNN {self.cudnn}" if self.cudnn else "without cuDNN"
        return (
            f"CUDA {self.cuda} (driver {self.min_driver} or newer), NCCL, {cudnn}, for compute "
            f"capability {shown} and newer"
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns the values as they stand in the manifest."""
        return {**asdict(self), "archs": self.archs}

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
        missing = [arch for arch in host.archs if not self.runs_on(arch, host.driver)]
        if missing:
            what = (
                f"this Caffe holds no code for GPUs of compute capability {capabilities(missing)}"
            )
            return what, f"build it for them: {_REBUILD}{self._arch_option(missing)}"
        return None

    def runs_on(self, arch: int, driver: tuple[int, int]) -> bool:
        """Whether there is code for a GPU.

        Machine code runs on later GPUs of the same generation, PTX on all later ones.
        """
        if any(known <= arch and known // 10 == arch // 10 for known in self.archs):
            return True
        ptx = (name.removeprefix("compute_") for name in self.code if name.startswith("compute_"))
        newest = any(number.isdecimal() and int(number) <= arch for number in ptx)
        needed = [kit.ptx_driver for kit in TOOLKITS.values() if kit.name == self.cuda]
        return newest and driver[0] >= max([self.min_driver, *needed])

    def _arch_option(self, missing: list[int]) -> str:
        """The option that builds for these GPUs as well, if one CUDA version supports all."""
        wanted = sorted({*self.archs, *missing})
        together = any(set(wanted) <= set(kit.archs) for kit in TOOLKITS.values())
        return f" --arch {capabilities(wanted if together else missing).replace(' ', '')}"


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
            cuda=str(told["cuda"]),
            code=tuple(str(name) for name in told["code"]),
            min_driver=int(told["min_driver"]),
            cudnn=str(told["cudnn"]) if told.get("cudnn") else None,
        )
    except (KeyError, TypeError, ValueError):
        return None
