"""What a Caffe can do: GPUs, several of them, and whose it is."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.caffe.verify import version
from irv2caffe.errors import InstallError
from irv2caffe.system import open_regular

if TYPE_CHECKING:
    from typing import BinaryIO

    from irv2caffe.caffe.find import FoundCaffe

# Messages that are compiled into tools/caffe.cpp where the feature is not.
_NO_GPU = b"Cannot use GPU in CPU-only Caffe"
_NO_NCCL = b"rebuild with USE_NCCL"
_NVCAFFE = b"NVCaffe"
_ELF = b"\x7fELF"
_MAX_PROGRAM_BYTES = 1 << 30


@dataclass(frozen=True)
class Capability:
    """What a Caffe can do; None is not known.

    Attributes:
        version: as it says itself.
        flavor: ``bvlc``, whose batch_size is that of each GPU, or ``nvcaffe``, whose batch_size
            is that of all of them.
        gpu: whether it was built with CUDA.
        several_gpus: whether it can train on more than one.
    """

    version: str
    flavor: str
    gpu: bool | None
    several_gpus: bool | None

    def text(self) -> str:
        """For a person."""
        kind = {"bvlc": "BVLC Caffe", "nvcaffe": "NVCaffe"}[self.flavor]
        can = {
            (False, False): "CPU only",
            (True, False): "CPU and one GPU (built without NCCL)",
            (True, True): "CPU and GPUs",
        }.get((bool(self.gpu), bool(self.several_gpus)), "CPU")
        return f"{kind} {self.version}, {'GPUs not known' if self.gpu is None else can}"


def capability(found: FoundCaffe) -> Capability:
    """Asks a Caffe for its version and looks into the program for what it was built with.

    A docker image is asked for its version only.

    Raises:
        InstallError: it cannot be run, or is no Caffe.
    """
    said = version(found)
    holds = frozenset[bytes]() if found.image else _messages(found)
    # NVCaffe's versions are 0.14 to 0.17; BVLC's counted on from 1.0.0-rc.
    flavor = "nvcaffe" if _NVCAFFE in holds or said.startswith("0.1") else "bvlc"
    if _ELF not in holds:
        return Capability(said, flavor, None, None)
    gpu = _NO_GPU not in holds
    return Capability(said, flavor, gpu, gpu and _NO_NCCL not in holds)


def _messages(found: FoundCaffe) -> frozenset[bytes]:
    """What of the above is in ``caffe``; source trees name it ``caffe.bin`` and link it."""
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
    """Looked for where it lies on the disk: a program may be of any size."""
    length = min(os.fstat(stream.fileno()).st_size, _MAX_PROGRAM_BYTES)
    if not length:
        return frozenset()
    with mmap.mmap(stream.fileno(), length, access=mmap.ACCESS_READ) as program:
        words = [word for word in (_NO_GPU, _NO_NCCL, _NVCAFFE) if program.find(word) >= 0]
        return frozenset([*words, *([_ELF] if program[: len(_ELF)] == _ELF else [])])
