"""Makes folders of packages: compilers, CUDA, Caffe's source, and the finished Caffe."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from irv2caffe.atomic import atomic_folder
from irv2caffe.caffe.build_cuda import patches
from irv2caffe.caffe.build_cuda.packages import Package, debian_packages, digest, nvidia_packages
from irv2caffe.caffe.build_cuda.unpack import unpack_deb, unpack_source, unpack_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from irv2caffe.caffe.build_cuda.build import Build
    from irv2caffe.caffe.build_cuda.variant import Variant

_LIBRARY = re.compile(r"lib/[^/]+\.so[.\d]*")
_TRIPLET = "usr/lib/x86_64-linux-gnu"
_DIST = "usr/lib/python3/dist-packages"
# Where Debian's package of nvcc 12 keeps what NVIDIA's own packages keep in one folder.
_NVCC_DEB = {
    "usr/bin/": "bin/",
    "usr/lib/nvidia-cuda-toolkit/bin/crt/": "bin/crt/",
    "usr/lib/nvidia-cuda-toolkit/bin/nvcc": "bin/nvcc",
    "usr/lib/nvidia-cuda-toolkit/bin/cicc": "nvvm/bin/cicc",
}
_NVCC_PROFILE = """TOP = $(_HERE_)/..
CICC_PATH = $(TOP)/nvvm/bin
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH += $(CICC_PATH):$(_HERE_):
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
"""


def debian_tree(folder: Path, downloads: Path, update: Callable[[int, int], None]) -> Path:
    """Returns the folder with Debian's compiler, headers and libraries, made if it is missing."""
    listed = [package for package in debian_packages() if package.role != "source"]
    path = folder / f"debian-{digest(tuple(listed))}"
    if not path.is_dir():
        with atomic_folder(path) as aside:
            _unpack_debs(listed, downloads, aside, update)
    return path


def _unpack_debs(
    listed: Sequence[Package], downloads: Path, folder: Path, update: Callable[[int, int], None]
) -> None:
    for done, package in enumerate(listed, 1):
        unpack_deb(downloads / package.name, folder)
        update(done, len(listed))


def cuda_tree(folder: Path, downloads: Path, variant: Variant) -> Path:
    """Returns the folder with nvcc, CUDA's headers and libraries, made if it is missing."""
    listed = nvidia_packages(variant)
    path = folder / f"cuda-{digest(listed)}"
    if not path.is_dir():
        with atomic_folder(path) as aside:
            for package in listed:
                if package.is_wheel:
                    unpack_wheel(downloads / package.name, aside)
                else:
                    unpack_deb(downloads / package.name, aside, _nvcc_place)
            if not (aside / "bin/nvcc.profile").is_file():
                (aside / "bin/nvcc.profile").write_text(_NVCC_PROFILE, encoding="utf-8")
            _link_names(aside / "lib")
    return path


def _nvcc_place(name: str) -> str | None:
    """Returns where a file of Debian's package of nvcc belongs, or None if it is not needed."""
    for old, new in _NVCC_DEB.items():
        if name == old or (old.endswith("/") and name.startswith(old)):
            return new + name[len(old) :]
    return None


def _link_names(libraries: Path) -> None:
    """Makes the links that ld looks for: ``libx.so`` to ``libx.so.12``."""
    for library in libraries.glob("lib*.so.*"):
        link = libraries / (library.name.split(".so.")[0] + ".so")
        if not link.exists():
            link.symlink_to(library.name)


def source_tree(folder: Path, downloads: Path) -> Path:
    """Returns the folder with Caffe's patched source, made if it is missing."""
    package = next(package for package in debian_packages() if package.role == "source")
    path = folder / f"source-{digest((package,))}-{patches.digest()}"
    if not path.is_dir():
        with atomic_folder(path) as aside:
            unpack_source(downloads / package.name, aside)
            patches.apply(aside)
    return path


def finished_tree(
    made: Build, downloads: Path, folder: Path, update: Callable[[int, int], None]
) -> None:
    """Fills a folder with everything that the finished Caffe needs to run."""
    listed = [package for package in debian_packages() if package.role == "run"]
    _unpack_debs(listed, downloads, folder, update)
    for package in nvidia_packages(made.variant):
        if package.role == "run":
            unpack_wheel(
                downloads / package.name, folder / "cuda", lambda name: bool(_LIBRARY.match(name))
            )
    for path in made.out.iterdir():
        places = {".so": f"{_DIST}/caffe", ".0": _TRIPLET}
        target = folder / places.get(path.suffix, "usr/bin") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    if made.variant.python:
        pycaffe = folder / _DIST / "caffe"
        shutil.copytree(made.source / "python/caffe", pycaffe, dirs_exist_ok=True)
        (pycaffe / "proto").mkdir(exist_ok=True)
        (pycaffe / "proto/__init__.py").touch()
        shutil.copy(made.generated / "caffe_pb2.py", pycaffe / "proto")
