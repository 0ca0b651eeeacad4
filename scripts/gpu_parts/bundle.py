"""Builds Caffe for CUDA into one small file, for a GPU machine without network or compiler.

What install-caffe --cuda makes, without OpenCV and pycaffe, so that it reads raw databases only;
with Caffe's own tests; without NVIDIA's libraries, which lie there in PyTorch's packages. The file
is for one's own machines: it is linked to CUDA, whose license tells who may redistribute that.
"""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_parts.caffe_programs import TESTS
from gpu_parts.commands import ROOT
from irv2caffe.caffe.build_cuda.build import Build, build
from irv2caffe.caffe.build_cuda.download import download
from irv2caffe.caffe.build_cuda.fatbin import code_in
from irv2caffe.caffe.build_cuda.host import parse_archs
from irv2caffe.caffe.build_cuda.packages import cudnn_version, packages
from irv2caffe.caffe.build_cuda.variant import Variant
from irv2caffe.caffe.find import RUNTIME_LOADER
from irv2caffe.caffe.manifest import MANIFEST, GpuBuild
from irv2caffe.caffe.mirror import known_mirror
from irv2caffe.caffe.toolkits import TOOLKITS

if TYPE_CHECKING:
    from collections.abc import Iterable

LIBRARIES = "usr/lib/x86_64-linux-gnu"
C_LIBRARIES = "lib/x86_64-linux-gnu"
_SEARCHED = (f"{LIBRARIES}/openblas-pthread", C_LIBRARIES, LIBRARIES, "usr/lib")
# The C library loads them by name, to look up the user; the host's would not fit.
NAME_SERVICES = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
TEST_DATA = "src/caffe/test/test_data"
UNIT_TESTS = (
    *("math_functions", "random_number_generator", "im2col_kernel", "im2col_layer"),
    *("convolution_layer", "deconvolution_layer", "pooling_layer", "inner_product_layer"),
    *("batch_norm_layer", "scale_layer", "bias_layer", "neuron_layer", "softmax_layer"),
    *("softmax_with_loss_layer", "eltwise_layer", "concat_layer", "lrn_layer"),
    "gradient_based_solver",
)


def make(args: Any) -> None:
    """Builds what ``--cuda``, ``--arch`` and ``--cudnn`` say, and writes the file."""
    out: Path = args.make_bundle
    variant = Variant(
        args.cuda, parse_archs(args.arch), opencv=False, python=False, cudnn=args.cudnn
    )
    made = _build(variant, args.build_dir.resolve())
    with tempfile.TemporaryDirectory(prefix="bundle-", dir=out.parent) as name:
        folder = Path(name)
        fill(folder, made)
        aside = out.with_name(f"{out.name}.partial")
        with tarfile.open(aside, "w:xz") as archive:
            for path in sorted(folder.iterdir()):
                archive.add(path, path.name)
        aside.replace(out)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {', '.join(variant.defines)}")


def _build(variant: Variant, folder: Path) -> Build:
    """Downloads and compiles; what is there from an earlier call is used again."""
    sys.path.insert(0, str(ROOT / "tests"))
    helpers: Any = importlib.import_module("helpers.caffe_unit_tests")
    download(packages(variant), folder / "downloads", [known_mirror(None)], print)
    made: Build = helpers.kept_build(folder, variant)
    build(made)
    helpers.compile_tests(made, UNIT_TESTS)
    return made


def fill(folder: Path, made: Build) -> None:
    """Copies programs and libraries as install-caffe would place them, and the tests' data."""
    debian, cuda = made.toolchain.debian, made.toolchain.cuda
    programs = [made.out / "caffe", made.out / TESTS]
    for program in programs:
        _copy(program, folder / "usr/bin" / program.name)
    for path in needed(programs, [made.out, *(debian / each for each in _SEARCHED), cuda / "lib"]):
        if path.is_relative_to(cuda):
            continue
        is_c = path.parent.resolve() == (debian / C_LIBRARIES).resolve()
        _copy(path, folder / (C_LIBRARIES if is_c else LIBRARIES) / path.name)
    for name in (Path(RUNTIME_LOADER).name, *NAME_SERVICES):
        _copy(debian / C_LIBRARIES / name, folder / C_LIBRARIES / name)
    shutil.copytree(made.source / TEST_DATA, folder / TEST_DATA)
    kit = TOOLKITS[made.variant.cuda]
    code = code_in(made.out / "libcaffe.so.1.0.0")
    told = GpuBuild(kit.name, code, kit.min_driver, cudnn_version(made.variant)).as_dict()
    (folder / MANIFEST).write_text(json.dumps({"gpu": told}, indent=2) + "\n")


def needed(programs: Iterable[Path], folders: Iterable[Path]) -> list[Path]:
    """The libraries that programs need, in turn as well; from these folders only."""
    searched = list(folders)
    loader = searched[2] / Path(RUNTIME_LOADER).name
    path = ":".join(map(str, searched))
    found: dict[str, Path] = {}
    for program in programs:
        command = [str(loader), "--library-path", path, "--list", str(program)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            name, arrow, place = line.strip().partition(" => ")
            if arrow:
                found[name] = Path(place.rpartition(" (")[0])
    return list(found.values())


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)
