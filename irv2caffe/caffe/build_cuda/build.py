"""Compiles Caffe: libcaffe, its programs and pycaffe."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.caffe.build_cuda import patches
from irv2caffe.caffe.build_cuda.packages import digest, packages
from irv2caffe.caffe.build_cuda.pool import Job, run_jobs
from irv2caffe.errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from irv2caffe.caffe.build_cuda.toolchain import Toolchain
    from irv2caffe.caffe.build_cuda.variant import Variant

_VERSION = "-DCAFFE_VERSION=1.0.0"
_SONAME = "libcaffe.so.1.0.0"


@dataclass(frozen=True)
class Build:
    """A compilation in a folder.

    Attributes:
        source: Caffe's source tree, patched.
        folder: for what is compiled.
        toolchain: the compilers.
        variant: what is built.
    """

    source: Path
    folder: Path
    toolchain: Toolchain
    variant: Variant

    @property
    def generated(self) -> Path:
        """The folder of the files that protoc makes."""
        return self.folder / "generated/caffe/proto"

    @property
    def out(self) -> Path:
        """The folder of the finished libraries and programs."""
        return self.folder / "out"

    def generate(self) -> None:
        """Runs protoc.

        Raises:
            InstallError: it failed.
        """
        self.generated.mkdir(parents=True, exist_ok=True)
        command = self.toolchain.protoc(self.source, self.generated)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise InstallError(f"protoc failed: {done.stderr.strip()[-300:]}")

    def library_objects(self) -> list[Job]:
        """Returns the jobs that compile libcaffe, the slowest first."""
        folder = self.source / "src/caffe"
        files = [
            *sorted(folder.rglob("*.cu")),
            *sorted(folder.rglob("*.cpp")),
            self.generated / "caffe.pb.cc",
        ]
        tests = folder / "test"
        return [self.compile(path) for path in files if tests not in path.parents]

    def compile(self, path: Path, *options: str) -> Job:
        """Returns the job that compiles one file.

        The object's name holds a digest of all that decides its contents, so that an earlier one
        is used again only if it is the same.
        """
        includes = (self.source / "include", self.source / "src", self.folder / "generated")
        make = self.toolchain.compile_cpp
        if path.suffix == ".cu":
            make = self.toolchain.compile_cuda
        text = path.read_bytes()
        # Only in the files that it changes: the others are the same with and without cuDNN.
        uses_cudnn = self.variant.cudnn and b"USE_CUDNN" in text
        used = packages(self.variant if uses_cudnn else replace(self.variant, cudnn=False))
        if uses_cudnn:
            options = (*options, "-DUSE_CUDNN")
        argv = (*make(self.variant, includes), *options, str(path))
        shown = "\n".join(argv)
        tools = self.toolchain
        for folder in (self.folder, self.source, tools.debian, tools.cuda, tools.tools):
            shown = shown.replace(str(folder), "")  # the pins tell what is in them
        pins = f"{digest(used)} {patches.digest()}"
        name = hashlib.sha256(f"{pins}\n{shown}\n".encode() + text).hexdigest()
        output = self.folder / "objects" / f"{path.stem}-{name[:24]}.o"
        return Job(argv, output, path.name)

    def link_library(self, objects: Iterable[Job]) -> Job:
        """Returns the job that links libcaffe."""
        return self._link(_SONAME, objects, "-shared", f"-Wl,-soname,{_SONAME}")

    def link_program(self, name: str, objects: Iterable[Job], *options: str) -> Job:
        """Returns the job that links a program or module with libcaffe."""
        return self._link(name, objects, *options, str(self.out / _SONAME))

    def _link(self, name: str, objects: Iterable[Job], *options: str) -> Job:
        argv = (
            *self.toolchain.link(),
            *(str(job.output) for job in objects),
            *options,
            *self.toolchain.libraries(self.variant),
        )
        return Job(argv, self.out / name, name)


def build(
    made: Build,
    update: Callable[[int, int], None] = lambda *_: None,
    workers: int | None = None,
) -> None:
    """Compiles and links everything; finished objects are used again.

    Raises:
        InstallError: a compiler failed.
    """
    made.toolchain.prepare()
    made.generate()
    library = made.library_objects()
    tools = sorted((made.source / "tools").glob("*.cpp"))
    programs = [made.compile(path, _VERSION) for path in tools]
    module = made.source / "python/caffe/_caffe.cpp"
    pycaffe = [made.compile(module, _VERSION)] * made.variant.python
    env = made.toolchain.environment()
    run_jobs([*library, *programs, *pycaffe], env, update, workers)
    shutil.rmtree(made.out, ignore_errors=True)
    run_jobs([made.link_library(library)], env)
    links = [made.link_program(Path(job.name).stem, [job]) for job in programs]
    links += [made.link_program("_caffe.so", [job], "-shared") for job in pycaffe]
    run_jobs(links, env)
