"""What a build is made for: CUDA version, GPU architectures, parts of Caffe."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One kind of GPU build.

    Attributes:
        cuda: major version of CUDA, 12 or 13.
        archs: compute capabilities times ten, ascending, such as ``(80, 90)``; machine code for
            each, and PTX of the last for newer GPUs.
        opencv: whether Caffe can decode images; without, it reads raw databases only.
        python: whether it includes the Python layer and pycaffe.
        cudnn: whether convolutions use cuDNN.
    """

    cuda: int
    archs: tuple[int, ...]
    opencv: bool = True
    python: bool = True
    cudnn: bool = False

    @property
    def defines(self) -> tuple[str, ...]:
        """Caffe's own switches, as its Makefile sets them."""
        names = ["NDEBUG", "USE_HDF5", "USE_LMDB", "USE_NCCL"]
        if self.opencv:
            names += ["USE_OPENCV", "USE_LEVELDB"]
        if self.python:
            names.append("WITH_PYTHON_LAYER")
        return tuple(f"-D{name}" for name in names)

    @property
    def gencode(self) -> tuple[str, ...]:
        """Options of nvcc that name the architectures."""
        newest = self.archs[-1]
        machine = [f"arch=compute_{arch},code=sm_{arch}" for arch in self.archs]
        options = [*machine, f"arch=compute_{newest},code=compute_{newest}"]
        return tuple(word for option in options for word in ("-gencode", option))
