"""What a Caffe can do: GPUs, several of them, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.caffe.verify import version
from irv2caffe.errors import InstallError

if TYPE_CHECKING:
    from irv2caffe.caffe.find import FoundCaffe

# Messages that are compiled into tools/caffe.cpp where the feature is not.
_NO_GPU = b"Cannot use GPU in CPU-only Caffe"
_NO_NCCL = b"rebuild with USE_NCCL"
_NVCAFFE = b"NVCaffe"
_ELF = b"\x7fELF"


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
    program = b"" if found.image else _program(found)
    # NVCaffe's versions are 0.14 to 0.17; BVLC's counted on from 1.0.0-rc.
    flavor = "nvcaffe" if _NVCAFFE in program or said.startswith("0.1") else "bvlc"
    if not program.startswith(_ELF):
        return Capability(said, flavor, None, None)
    gpu = _NO_GPU not in program
    return Capability(said, flavor, gpu, gpu and _NO_NCCL not in program)


def _program(found: FoundCaffe) -> bytes:
    """The bytes of ``caffe``; source trees name it ``caffe.bin`` and link it."""
    for name in ("caffe", "caffe.bin"):
        path = found.tools / name
        if path.is_file():
            try:
                return path.read_bytes()
            except OSError as error:
                raise InstallError(f"{path} cannot be read: {error.strerror}") from error
    return b""
