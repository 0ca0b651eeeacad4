"""Changes to Caffe's source, as exact texts: a source that differs is refused."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from irv2caffe.errors import InstallError


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
# Caffe chooses algorithms with functions that cuDNN 8 removed: these files replace its layers of
# convolution and deconvolution.
ADDED = Path(__file__).with_name("added")
_REMOVED = ("src/caffe/layers/cudnn_conv_layer.cu", "src/caffe/layers/cudnn_deconv_layer.cu")
_FACTORY = "src/caffe/layer_factory.cpp"
_HANDLE = "cudnn::Handle()"


def _in_gpu_mode(name: str) -> Patch:
    """By default, layers of cuDNN are only for GPU mode, since they need a GPU."""
    engine = f"    engine = {name}Parameter_Engine_"
    in_gpu_mode = (
        f"#ifdef USE_CUDNN\n    if (Caffe::mode() == Caffe::GPU) {{\n  {engine}CUDNN;\n    }}\n"
    )
    return Patch(_FACTORY, f"#ifdef USE_CUDNN\n{engine}CUDNN;\n", in_gpu_mode)


def _shared_handle(name: str, old: str, new: str = _HANDLE) -> tuple[Patch, ...]:
    """Makes a layer use the handle of its thread; there was one for each layer."""
    file = f"src/caffe/layers/cudnn_{name}_layer"
    this = "this->" if old.startswith("this->") else ""
    return (
        Patch(f"{file}.cpp", "  CUDNN_CHECK(cudnnCreate(&handle_));\n", ""),
        Patch(f"{file}.cpp", f"  cudnnDestroy({this}handle_);\n", ""),
        Patch(f"{file}.cu", old, new),
    )


_CUDNN = (
    Patch(
        "include/caffe/util/cudnn.hpp",
        "namespace cudnn {\n",
        "namespace cudnn {\n\n"
        "// The handle of the calling thread for its current device. Its work goes to\n"
        "// the default stream, like all of Caffe's: calls run one after another, so\n"
        "// that one handle and one workspace serve all layers.\n"
        "cudnnHandle_t Handle();\n",
    ),
    # The library's function of this name knows all of its errors.
    Patch(
        "include/caffe/util/cudnn.hpp",
        "inline const char* cudnnGetErrorString(",
        "inline const char* caffeCudnnErrorString(",
    ),
    Patch(  # of both layers
        _FACTORY,
        "    if (!use_dilation) {\n      engine = ConvolutionParameter_Engine_CUDNN;",
        "    if (!use_dilation && Caffe::mode() == Caffe::GPU) {\n"
        "      engine = ConvolutionParameter_Engine_CUDNN;",
    ),
    *(_in_gpu_mode(name) for name in ("ReLU", "Sigmoid", "Softmax", "TanH")),
    Patch(
        _FACTORY,
        "#ifdef USE_CUDNN\n    engine = LRNParameter_Engine_CUDNN;\n#else\n"
        "    engine = LRNParameter_Engine_CAFFE;\n#endif\n",
        "    engine = LRNParameter_Engine_CAFFE;\n#ifdef USE_CUDNN\n"
        "    if (Caffe::mode() == Caffe::GPU) {\n"
        "      engine = LRNParameter_Engine_CUDNN;\n    }\n#endif\n",
    ),
    # cuDNN divides sums over windows that reach beyond the padding by another number.
    Patch(_FACTORY, "#ifdef USE_CUDNN\n    engine = PoolingParameter_Engine_CUDNN;\n#endif\n", ""),
    *(
        patch
        for name in ("relu", "sigmoid", "tanh")
        for patch in _shared_handle(name, "this->handle_")
    ),
    *(
        patch
        for name in ("lcn", "lrn")
        for patch in _shared_handle(name, "        handle_,", f"        {_HANDLE},")
    ),
    *(
        patch
        for name in ("pooling", "softmax")
        for patch in _shared_handle(name, "(handle_,", f"({_HANDLE},")
    ),
    # Not needed, and not for g++.
    Patch("src/caffe/layers/cudnn_softmax_layer.cpp", '#include "thrust/device_vector.h"\n', ""),
)
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
    *_CUDNN,
)


def digest(patches: tuple[Patch, ...] = PATCHES) -> str:
    """Returns a short digest that changes with every patch and added file."""
    made = hashlib.sha256(repr(patches).encode())
    for path in _added():
        made.update(path.read_bytes())
    return made.hexdigest()[:16]


def _added() -> list[Path]:
    return sorted(path for path in ADDED.rglob("*.*pp") if path.is_file())


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
    for name in _REMOVED:
        (source / name).unlink()
    for path in _added():
        target = source / path.relative_to(ADDED)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
