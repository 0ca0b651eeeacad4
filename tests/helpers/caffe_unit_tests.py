"""Caffe's own unit tests, compiled against a build for GPUs that was kept."""

from __future__ import annotations

import subprocess

from irv2caffe.caffe.build_cuda import trees
from irv2caffe.caffe.build_cuda.build import Build
from irv2caffe.caffe.build_cuda.pool import run_jobs
from irv2caffe.caffe.build_cuda.toolchain import Toolchain
from irv2caffe.caffe.command import tool_command

# Since CUDA 12.8 kernels are private to their file; the test of im2col calls those of the library.
_SHARED_KERNELS = "-static-global-template-stub=false"


def kept_build(build_dir, variant):
    """The build in a folder that install-caffe --cuda --keep-build left."""
    downloads = build_dir / "downloads"
    return Build(
        source=trees.source_tree(build_dir, downloads),
        folder=build_dir / "build",
        toolchain=Toolchain(
            trees.debian_tree(build_dir, downloads, lambda *_: None),
            trees.cuda_tree(build_dir, downloads, variant),
            build_dir / "tools",
        ),
        variant=variant,
    )


def compile_tests(made, names):
    """Compiles the tests of these names, such as ``math_functions``, into one program.

    Quickly rather than well: with little optimization.
    """
    folder = made.source / "src/caffe/test"
    files = [next(folder.glob(f"test_{name}.c*")) for name in names]
    files += [folder / "test_caffe_main.cpp", made.source / "src/gtest/gtest-all.cpp"]
    kernels = [made.source / "src/caffe/util/im2col.cu"] if "im2col_kernel" in names else []
    options = [_SHARED_KERNELS] if made.variant.cuda >= 13 else []
    objects = [
        made.compile(path, "-O1", *options * (path.suffix == ".cu")) for path in (*files, *kernels)
    ]
    program = made.link_program("test_caffe", objects)
    env = made.toolchain.environment()
    run_jobs(objects, env)
    run_jobs([program], env)
    return program.output


def run_tests(program, found, source, pattern):
    """Runs the tests that a pattern of googletest selects, in the source tree as they need it."""
    command = tool_command(found, "caffe", [f"--gtest_filter={pattern}", "--gtest_color=no"])
    argv = [str(program) if word == str(found.tools / "caffe") else word for word in command.argv]
    return subprocess.run(
        argv, env=command.env, cwd=source, capture_output=True, text=True, check=False
    )
