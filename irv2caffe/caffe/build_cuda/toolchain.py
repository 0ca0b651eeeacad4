"""Command lines of the unpacked compilers: g++ 10 and protoc of Debian 11, nvcc of NVIDIA.

The compilers run with the host's loader and C library; only the other libraries that they need are
taken from the Debian packages.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.caffe.find import RUNTIME_LOADER

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.caffe.build_cuda.variant import Variant

_TRIPLET = "x86_64-linux-gnu"
_PYTHON = "python3.9"
# Needed by cc1plus, as and ld. The folder must not hold a C library, which the host's shell and
# compilers would then load.
_COMPILER_LIBRARIES = (
    "libmpc.so.3",
    "libmpfr.so.6",
    "libgmp.so.10",
    "libisl.so.23",
    "libz.so.1",
    "libzstd.so.1",
    "libbfd-2.35.2-system.so",
    "libopcodes-2.35.2-system.so",
    "libctf.so.0",
)
_PROGRAMS = {"g++": "g++-10", "gcc": "gcc-10", "as": "as", "ld": "ld"}
_LIBRARY_FOLDERS = (
    f"usr/lib/{_TRIPLET}/openblas-pthread",
    f"lib/{_TRIPLET}",
    f"usr/lib/{_TRIPLET}",
    f"usr/lib/{_TRIPLET}/hdf5/serial",
)
_LIBRARIES = (
    *("cudart", "cublas", "curand", "nccl"),
    *("glog", "gflags", "protobuf", "boost_filesystem", "boost_thread", "boost_system"),
    *("hdf5_serial_hl", "hdf5_serial", "lmdb", "openblas"),
)
_OPENCV_LIBRARIES = ("leveldb", "opencv_imgcodecs", "opencv_imgproc", "opencv_core")
_PYTHON_LIBRARIES = ("boost_python39", _PYTHON)


@dataclass(frozen=True)
class Toolchain:
    """The unpacked compilers and libraries.

    Attributes:
        debian: folder with the Debian packages.
        cuda: folder with NVIDIA's packages: bin, include, lib, nvvm.
        tools: folder for links to the compilers and their libraries.
    """

    debian: Path
    cuda: Path
    tools: Path

    def prepare(self) -> None:
        """Makes the links to the compilers and the libraries that they need."""
        (self.tools / "bin").mkdir(parents=True, exist_ok=True)
        (self.tools / "lib").mkdir(exist_ok=True)
        for name, program in _PROGRAMS.items():
            target = self.debian / "usr/bin" / f"{_TRIPLET}-{program}"
            _link(self.tools / "bin" / name, target)
        for name in _COMPILER_LIBRARIES:
            places = (self.debian / folder / name for folder in _LIBRARY_FOLDERS)
            for place in filter(lambda place: place.exists(), places):
                _link(self.tools / "lib" / name, place)

    def environment(self) -> dict[str, str]:
        """Returns the environment in which the compilers run."""
        kept = {name: os.environ[name] for name in ("TMPDIR", "HOME") if name in os.environ}
        return {
            **kept,
            "PATH": f"{self.tools / 'bin'}:{self.cuda / 'bin'}:/usr/bin:/bin",
            "LD_LIBRARY_PATH": str(self.tools / "lib"),
            "LC_ALL": "C",
        }

    def protoc(self, source: Path, out: Path) -> tuple[str, ...]:
        """Returns the command that makes caffe.pb.h, caffe.pb.cc and caffe_pb2.py."""
        libraries = ":".join(str(self.debian / folder) for folder in _LIBRARY_FOLDERS)
        return (
            *(str(self.debian / RUNTIME_LOADER), "--library-path", libraries),
            *(str(self.debian / "usr/bin/protoc"), f"--proto_path={source / 'src/caffe/proto'}"),
            *(f"--cpp_out={out}", f"--python_out={out}"),
            str(source / "src/caffe/proto/caffe.proto"),
        )

    def compile_cpp(self, variant: Variant, includes: tuple[Path, ...]) -> tuple[str, ...]:
        """Returns the g++ command, without source and object."""
        return (
            *(str(self.tools / "bin/g++"), f"--sysroot={self.debian}", f"-B{self.tools / 'bin'}"),
            *("-O2", "-fPIC", "-pthread", "-w", *variant.defines, "-c"),
            *self._includes(variant, includes),
        )

    def compile_cuda(self, variant: Variant, includes: tuple[Path, ...]) -> tuple[str, ...]:
        """Returns the nvcc command, without source and object."""
        return (
            *(str(self.cuda / "bin/nvcc"), "-ccbin", str(self.tools / "bin/g++")),
            *("-std=c++17", "-O2", "-w", "-Xcompiler"),
            f"--sysroot={self.debian},-B{self.tools / 'bin'},-fPIC,-pthread,-w",
            *(*variant.gencode, *variant.defines, "-c"),
            *self._includes(variant, includes),
        )

    def _includes(self, variant: Variant, includes: tuple[Path, ...]) -> tuple[str, ...]:
        usr = self.debian / "usr/include"
        folders = [
            *includes,
            self.cuda / "include",
            usr / "hdf5/serial",
            usr / _TRIPLET / "openblas-pthread",
        ]
        if variant.opencv:
            folders += [usr / "opencv4", usr / _TRIPLET / "opencv4"]
        if variant.python:
            numpy = self.debian / "usr/lib/python3/dist-packages/numpy/core/include"
            folders += [usr / _PYTHON, usr / _TRIPLET / _PYTHON, numpy]
        return tuple(f"-I{folder}" for folder in folders)

    def link(self) -> tuple[str, ...]:
        """Returns the g++ command that links, without objects, libraries and output."""
        search = [f"-L{self.debian / folder}" for folder in _LIBRARY_FOLDERS]
        # What the libraries need in turn is found at run time.
        rules = "-Wl,--as-needed,--allow-shlib-undefined"
        return (
            *(str(self.tools / "bin/g++"), f"--sysroot={self.debian}", f"-B{self.tools / 'bin'}"),
            *("-pthread", "-s", rules, f"-L{self.cuda / 'lib'}", *search),
        )

    def libraries(self, variant: Variant) -> tuple[str, ...]:
        """Returns the options that name the libraries."""
        names = [
            *_LIBRARIES,
            *(_OPENCV_LIBRARIES if variant.opencv else ()),
            *(_PYTHON_LIBRARIES if variant.python else ()),
            *(["cudnn"] if variant.cudnn else ()),
        ]
        return tuple(f"-l{name}" for name in names)


def _link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)
