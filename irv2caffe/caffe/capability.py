"""What a Caffe supports: GPUs, several GPUs, and NVIDIA's fork."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.caffe.find import find_caffe, find_gpu_build
from irv2caffe.caffe.gpu_host import read_host
from irv2caffe.caffe.manifest import gpu_build
from irv2caffe.caffe.verify import version
from irv2caffe.errors import CaffeNotFoundError, InstallError
from irv2caffe.system import open_regular

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from irv2caffe.caffe.find import FoundCaffe
    from irv2caffe.caffe.manifest import GpuBuild

# Messages in the caffe program that exist only if the feature is compiled out.
_NO_GPU = b"Cannot use GPU in CPU-only Caffe"
_NO_NCCL = b"rebuild with USE_NCCL"
_NVCAFFE = b"NVCaffe"
_ELF = b"\x7fELF"
_MAX_PROGRAM_BYTES = 1 << 30


@dataclass(frozen=True)
class Capability:
    """What a Caffe supports; None means unknown.

    Attributes:
        version: output of ``caffe --version``.
        flavor: ``bvlc``, whose batch_size is per GPU, or ``nvcaffe``, whose batch_size is shared
            by all GPUs.
        gpu: whether it was built with CUDA.
        several_gpus: whether it was built with NCCL.
        built: what install-caffe --cuda built it for; None for any other.
    """

    version: str
    flavor: str
    gpu: bool | None
    several_gpus: bool | None
    built: GpuBuild | None = None

    @property
    def cudnn(self) -> bool | None:
        """Whether it was built with cuDNN."""
        return _cudnn(self.built, self.gpu)

    def text(self) -> str:
        """Returns one line for the user."""
        kind = {"bvlc": "BVLC Caffe", "nvcaffe": "NVCaffe"}[self.flavor]
        if self.built is not None:
            return f"{kind} {self.version}, {self.built.text()}"
        return f"{kind} {self.version}, {self.devices}"

    @property
    def devices(self) -> str:
        """What it computes on, for the user."""
        if self.gpu is None:
            return "GPU support unknown"
        if not self.gpu:
            return "CPU only"
        return "CPU and GPUs" if self.several_gpus else "CPU and one GPU (built without NCCL)"


def find_caffe_for_gpus() -> FoundCaffe:
    """Returns the Caffe to use for GPUs: that of ``install-caffe --cuda`` if none before it can.

    Raises:
        CaffeNotFoundError: none is found.
    """
    built = find_gpu_build()
    try:
        found = find_caffe()
    except CaffeNotFoundError:
        if "CAFFE_ROOT" in os.environ:
            raise
        if built is None:
            hint = "run: irv2caffe install-caffe --cuda"
            raise CaffeNotFoundError(
                "no Caffe for GPUs found, and none for the CPU", hint
            ) from None
        return built
    if built is None or "CAFFE_ROOT" in os.environ or _may_use_gpus(found):
        return found
    return built


def check_gpus(found: FoundCaffe, uuids: Sequence[str] = ()) -> None:
    """Refuses GPUs that a Caffe of ``install-caffe --cuda`` cannot use.

    Args:
        found: the Caffe.
        uuids: the GPUs; empty for all of the machine.

    Raises:
        InstallError: the driver is missing or too old, or there is no code for a GPU.
    """
    built = gpu_build(found.root) if found.is_runtime else None
    fault = built.fault(read_host().only(uuids)) if built else None
    if fault:
        raise InstallError(*fault)


def _may_use_gpus(found: FoundCaffe) -> bool:
    try:
        return capability(found).gpu is not False
    except InstallError:
        return False


def capability(found: FoundCaffe) -> Capability:
    """Finds out what a Caffe supports, from its version and the messages in its program.

    Of a docker image, only the version is known.

    Raises:
        InstallError: it cannot be run, or is not Caffe.
    """
    said = version(found)
    holds = frozenset[bytes]() if found.image else _messages(found)
    # NVCaffe has versions 0.14 to 0.17, BVLC Caffe has 1.0.0-rc and later.
    flavor = "nvcaffe" if _NVCAFFE in holds or said.startswith("0.1") else "bvlc"
    if _ELF not in holds:
        return Capability(said, flavor, None, None)
    gpu = _NO_GPU not in holds
    built = gpu_build(found.root) if found.is_runtime else None
    return Capability(said, flavor, gpu, gpu and _NO_NCCL not in holds, built)


def has_cudnn(found: FoundCaffe) -> bool | None:
    """Whether a Caffe was built with cuDNN, without running it; None if unknown."""
    holds = frozenset[bytes]() if found.image else _messages(found)
    gpu = _NO_GPU not in holds if _ELF in holds else None
    return _cudnn(gpu_build(found.root) if found.is_runtime else None, gpu)


def _cudnn(built: GpuBuild | None, gpu: bool | None) -> bool | None:
    if built is not None:
        return built.cudnn is not None
    return False if gpu is False else None


def _messages(found: FoundCaffe) -> frozenset[bytes]:
    """Returns which of the messages above ``caffe`` contains; ``caffe.bin`` in a source tree."""
    for name in ("caffe", "caffe.bin"):
        path = found.tools / name
        if path.is_file():
            try:
                with open_regular(path) as stream:
                    return _found_in(stream)
            except OSError as error:
                raise InstallError(f"{path} cannot be read: {error.strerror}") from error
    return frozenset()


def _found_in(stream: BinaryIO) -> frozenset[bytes]:
    """Searches a memory-mapped file, since the program may have any size."""
    length = min(os.fstat(stream.fileno()).st_size, _MAX_PROGRAM_BYTES)
    if not length:
        return frozenset()
    with mmap.mmap(stream.fileno(), length, access=mmap.ACCESS_READ) as program:
        words = [word for word in (_NO_GPU, _NO_NCCL, _NVCAFFE) if program.find(word) >= 0]
        return frozenset([*words, *([_ELF] if program[: len(_ELF)] == _ELF else [])])
