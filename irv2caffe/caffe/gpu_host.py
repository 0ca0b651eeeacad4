"""The NVIDIA driver and the GPUs of this machine, and why CUDA cannot use them."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PROC = Path("/proc/driver/nvidia/version")
_VERSION = re.compile(r"\b(\d{3,4})\.(\d+)")
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Host:
    """The driver and the GPUs of a machine.

    Attributes:
        driver: version of the NVIDIA driver such as ``(550, 163)``, or None if there is none.
        archs: compute capabilities of the GPUs times ten, ascending, without repetitions.
        arch_of: the same for each GPU, by its UUID.
    """

    driver: tuple[int, int] | None
    archs: tuple[int, ...]
    arch_of: Mapping[str, int] = field(default_factory=dict, compare=False)

    def only(self, uuids: Iterable[str]) -> Host:
        """Returns the machine with these GPUs only; with all of them if they are unknown."""
        archs = {self.arch_of[uuid] for uuid in uuids if uuid in self.arch_of}
        return replace(self, archs=tuple(sorted(archs))) if archs else self

    @property
    def driver_text(self) -> str:
        """The version of the driver, such as ``550.163``; empty if there is none."""
        return ".".join(map(str, self.driver or ()))


def read_host(proc: Path = _PROC) -> Host:
    """Reads the driver's version from /proc, and the rest from NVML or nvidia-smi."""
    driver = _driver_of(proc)
    told, archs = _ask_nvml() or _ask_nvidia_smi() or ("", {})
    return Host(driver or _version(told), tuple(sorted(set(archs.values()))), archs)


def _driver_of(proc: Path) -> tuple[int, int] | None:
    try:
        first = proc.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except OSError:
        return None
    return _version(first.partition("Kernel Module")[2])


def _version(text: str) -> tuple[int, int] | None:
    match = _VERSION.search(text)
    return (int(match[1]), int(match[2])) if match else None


def _ask_nvml() -> tuple[str, dict[str, int]] | None:
    """Returns the driver's version and the compute capabilities, or None without nvidia-ml-py."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            driver = pynvml.nvmlSystemGetDriverVersion()
            archs = dict(_arch(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
    return _text(driver), archs


def _arch(nvml: Any, index: int) -> tuple[str, int]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return _text(nvml.nvmlDeviceGetUUID(handle)), int(major) * 10 + int(minor)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _ask_nvidia_smi() -> tuple[str, dict[str, int]] | None:
    """Returns the same from nvidia-smi, or None if it is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None and Path("/usr/lib/wsl/lib/nvidia-smi").is_file():
        program = "/usr/lib/wsl/lib/nvidia-smi"
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version,uuid,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    rows = [line.split(", ") for line in done.stdout.splitlines() if line.count(", ") == 2]
    archs = {
        uuid: int(capability.replace(".", ""))
        for _, uuid, capability in rows
        if re.fullmatch(r"\d+\.\d", capability)
    }
    return (rows[0][0], archs) if done.returncode == 0 and rows else None
