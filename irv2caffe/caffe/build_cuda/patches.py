"""Changes to Caffe's source, as exact texts: a source that differs is refused."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.errors import InstallError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Patch:
    """Replaces a text in a file wherever it occurs."""

    path: str
    old: str
    new: str


def _attribute(name: str) -> str:
    """Returns a C++ expression for an attribute of the current device."""
    return (
        "([] { int device = 0, value = 0; cudaGetDevice(&device); "
        f"cudaDeviceGetAttribute(&value, {name}, device); return value; }}())"
    )


# OpenCV 4 moved the constants CV_LOAD_IMAGE_COLOR and _GRAYSCALE to another header.
_INCLUDE = "#include <opencv2/highgui/highgui_c.h>\n"
_OPENCV_4 = "#include <opencv2/imgcodecs/legacy/constants_c.h>\n"
# CUDA 13 removed these members of cudaDeviceProp; the attributes are older than CUDA 12.
_REMOVED_IN_CUDA_13 = {
    "prop.clockRate": "cudaDevAttrClockRate",
    "prop.deviceOverlap": "cudaDevAttrGpuOverlap",
    "prop.kernelExecTimeoutEnabled": "cudaDevAttrKernelExecTimeout",
}
PATCHES = (
    *(
        Patch(path, _INCLUDE, _INCLUDE + _OPENCV_4)
        for path in ("src/caffe/util/io.cpp", "src/caffe/layers/window_data_layer.cpp")
    ),
    *(
        Patch("src/caffe/common.cpp", old, _attribute(name))
        for old, name in _REMOVED_IN_CUDA_13.items()
    ),
    # The threads of data layers asked for a GPU in CPU mode too, and died without a driver.
    Patch(
        "src/caffe/internal_thread.cpp",
        "  CUDA_CHECK(cudaGetDevice(&device));",
        "  if (Caffe::mode() == Caffe::GPU) { CUDA_CHECK(cudaGetDevice(&device)); }",
    ),
    Patch(
        "src/caffe/internal_thread.cpp",
        "  CUDA_CHECK(cudaSetDevice(device));",
        "  if (mode == Caffe::GPU) { CUDA_CHECK(cudaSetDevice(device)); }",
    ),
    # Without a usable device, Caffe would write uninitialized bytes to the log.
    Patch("tools/caffe.cpp", "cudaDeviceProp device_prop;", "cudaDeviceProp device_prop = {};"),
)


def digest(patches: tuple[Patch, ...] = PATCHES) -> str:
    """Returns a short digest that changes with every patch."""
    return hashlib.sha256(repr(patches).encode()).hexdigest()[:16]


def apply(source: Path, patches: tuple[Patch, ...] = PATCHES) -> None:
    """Changes the files of a freshly unpacked source tree.

    Raises:
        InstallError: a file lacks the text to be replaced.
    """
    for patch in patches:
        path = source / patch.path
        text = path.read_text(encoding="utf-8")
        if patch.old not in text:
            raise InstallError(f"{patch.path}: {patch.old!r} is not in this source of Caffe")
        path.write_text(text.replace(patch.old, patch.new), encoding="utf-8")
