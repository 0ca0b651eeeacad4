"""Decides what to build for a machine, or refuses it: driver, GPUs, C library."""

from __future__ import annotations

import os
import platform
import re
from typing import TYPE_CHECKING

from irv2caffe.caffe.build_cuda.variant import Variant
from irv2caffe.caffe.toolkits import TOOLKITS, capabilities
from irv2caffe.errors import InstallError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.caffe.gpu_host import Host

DEFAULT_CUDNN = True
_MIN_GLIBC = (2, 31)  # of the unpacked compilers


def parse_archs(text: str) -> tuple[int, ...]:
    """Returns the architectures of ``80,90`` or ``8.0,9.0``.

    Raises:
        UsageError: not a list of compute capabilities.
    """
    words = [word.strip().removeprefix("sm_").replace(".", "") for word in text.split(",")]
    if not all(re.fullmatch(r"\d{2,3}", word) for word in words):
        raise UsageError(f"--arch {text}: expected compute capabilities such as 80,90")
    return tuple(sorted({int(word) for word in words}))


def choose_variant(
    host: Host,
    cuda: int | None = None,
    archs: tuple[int, ...] | None = None,
    *,
    python: bool = True,
    cudnn: bool | None = None,
) -> Variant:
    """Returns what to build for a machine.

    Args:
        host: driver and GPUs.
        cuda: major version of CUDA that the user wants, or None.
        archs: architectures that the user wants, or None for those of the GPUs.
        python: whether to build pycaffe and the Python layer.
        cudnn: whether to build with cuDNN; by default :data:`DEFAULT_CUDNN`.

    Raises:
        InstallError: no driver, an old driver, no GPU, or GPUs that this CUDA does not support.
        UsageError: this CUDA does not know an architecture that the user named.
    """
    wanted = archs or host.archs
    if not wanted:
        raise _no_gpu(host)
    fitting = [number for number, kit in TOOLKITS.items() if set(wanted) <= set(kit.archs)]
    if cuda is None:
        cuda = fitting[0] if fitting else None
    if cuda is None or cuda not in fitting:
        raise _unsupported(wanted, cuda, told=archs is not None)
    kit = TOOLKITS[cuda]
    # Without GPUs, the build is for another machine, and its driver is not known.
    if host.driver is not None and host.driver[0] < kit.min_driver:
        raise _old_driver(host.driver, cuda, wanted)
    with_cudnn = DEFAULT_CUDNN if cudnn is None else cudnn
    return Variant(cuda, wanted, python=python, cudnn=with_cudnn)


def _no_gpu(host: Host) -> InstallError:
    way_out = "to build for the GPUs of another machine, name their compute capability: --arch 80"
    if host.driver is None:
        return InstallError(
            "no NVIDIA driver was found (no /proc/driver/nvidia, NVML or nvidia-smi)",
            f"install the driver; in a container, start it with access to the GPUs; {way_out}",
        )
    return InstallError(
        f"the NVIDIA driver {host.driver_text} shows no GPU", f"see nvidia-smi; {way_out}"
    )


def _unsupported(
    archs: Sequence[int], cuda: int | None, *, told: bool
) -> InstallError | UsageError:
    shown = capabilities(archs)
    known = "; ".join(f"CUDA {kit.name}: {capabilities(kit.archs)}" for kit in TOOLKITS.values())
    by = f"CUDA {TOOLKITS[cuda].name}" if cuda else "one CUDA version"
    if told:
        return UsageError(f"--arch: {shown} is not supported by {by}", known)
    return InstallError(
        f"the GPUs' compute capability {shown} is not supported by {by}",
        f"name some of them with --arch, or another version with --cuda ({known})",
    )


def _old_driver(driver: tuple[int, int], cuda: int, archs: Sequence[int]) -> InstallError:
    kit = TOOLKITS[cuda]
    message = (
        f"the NVIDIA driver {driver[0]}.{driver[1]} is too old for CUDA {kit.name}, which needs "
        f"{kit.min_driver} or newer"
    )
    older = TOOLKITS[12]
    if cuda == 13 and driver[0] >= older.min_driver and set(archs) <= set(older.archs):
        return InstallError(message, "use --cuda 12, or update the driver")
    return InstallError(message, "update the driver")


def check_machine() -> None:
    """Refuses machines on which the unpacked compilers do not run.

    Raises:
        InstallError: not Linux on x86-64 with a recent GNU C library.
    """
    way_out = "use another machine, or --docker with an image of Caffe for GPUs"
    machine = f"{platform.system()} {platform.machine()}"
    if machine != "Linux x86_64":
        raise InstallError(
            f"install-caffe --cuda works on Linux x86_64 only, this is {machine}", way_out
        )
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        name = ""
    match = re.match(r"glibc (\d+)\.(\d+)", name)
    if match is None:
        raise InstallError("this system has no GNU C library (musl?)", way_out)
    if (int(match[1]), int(match[2])) < _MIN_GLIBC:
        raise InstallError(
            f"the compilers need glibc {_MIN_GLIBC[0]}.{_MIN_GLIBC[1]} or newer, this is {name}",
            way_out,
        )
