"""``install-caffe --cuda``: from packages to an installed Caffe for GPUs."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from irv2caffe.atomic import atomic_folder, refuse_existing, write_error
from irv2caffe.caffe.build_cuda import trees
from irv2caffe.caffe.build_cuda.build import Build, build
from irv2caffe.caffe.build_cuda.download import download
from irv2caffe.caffe.build_cuda.fatbin import code_in
from irv2caffe.caffe.build_cuda.packages import cudnn_version, packages
from irv2caffe.caffe.build_cuda.plan import check_space
from irv2caffe.caffe.build_cuda.toolchain import Toolchain
from irv2caffe.caffe.driver import driver_libraries, link_driver
from irv2caffe.caffe.find import DRIVER_FOLDER, FoundCaffe
from irv2caffe.caffe.manifest import MANIFEST, GpuBuild
from irv2caffe.caffe.mmdebstrap import folder_bytes
from irv2caffe.caffe.toolkits import TOOLKITS
from irv2caffe.caffe.verify import verify
from irv2caffe.errors import InstallError
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from irv2caffe.caffe.build_cuda.plan import Plan

_LIBRARY = "usr/lib/x86_64-linux-gnu/libcaffe.so.1.0.0"


class Progress(Protocol):
    """Shows progress: called with a name, it yields ``update(done, total)``."""

    def __call__(self, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Begins a bar."""


@dataclass(frozen=True)
class CudaReport:
    """The result of install-caffe --cuda.

    Attributes:
        prefix: the folder.
        version: output of ``caffe --version``.
        cuda: version of CUDA.
        cudnn: version of cuDNN; None if it was built without.
        code: GPU code in it, read back from the library.
        size_bytes: size of the folder.
        seconds: duration.
        checks: passed checks, one line each.
    """

    prefix: Path
    version: str
    cuda: str
    cudnn: str | None
    code: tuple[str, ...]
    size_bytes: int
    seconds: float
    checks: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns the values for JSON."""
        return asdict(self)

    def summary(self) -> str:
        """Returns one line for the user."""
        cudnn = f" and cuDNN {self.cudnn}" if self.cudnn else ""
        return (
            f"Caffe {self.version} with CUDA {self.cuda}{cudnn} ({', '.join(self.code)}) in "
            f"{self.prefix}: {format_bytes(self.size_bytes)}, in {self.seconds:.0f} s"
        )


def install_cuda(
    plan: Plan,
    progress: Progress,
    *,
    force: bool = False,
    keep_build: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> CudaReport:
    """Downloads, compiles, checks and installs; an interrupted run is continued by the next.

    Args:
        plan: what to do.
        progress: shows progress.
        force: whether to replace an earlier install.
        keep_build: whether to keep downloads and compiled files.
        say: called with messages for the user.

    Raises:
        InstallError: a download, the compilation or a check failed; nothing was installed.
        OutputExistsError: ``prefix`` exists, and ``force`` is not set.
        OutputError: a folder cannot be written.
    """
    started = time.monotonic()
    if not force:
        refuse_existing(plan.prefix)
    check_space(plan)
    with _locked(plan.build_dir):
        made = _build(plan, progress, say)
        with atomic_folder(plan.prefix, force=force) as aside:
            report = _finish(plan, made, aside, started, progress, say)
    if not keep_build:
        shutil.rmtree(plan.build_dir, ignore_errors=True)
    return report


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a folder's lock: two builds in it would disturb each other."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InstallError(
                    f"another install-caffe --cuda is at work in {folder}",
                    "wait for it, or choose another folder with --build-dir",
                ) from error
            yield
    except OSError as error:
        raise write_error(Path(error.filename or folder), error) from error


def _build(plan: Plan, progress: Progress, say: Callable[[str], None]) -> Build:
    """Downloads, unpacks and compiles."""
    with progress("Debian packages") as update:
        download(packages(plan.variant), plan.downloads, plan.mirrors, say, update)
    with progress("unpacked") as update:
        debian = trees.debian_tree(plan.build_dir, plan.downloads, update)
    say("unpacking CUDA")
    cuda = trees.cuda_tree(plan.build_dir, plan.downloads, plan.variant)
    source = trees.source_tree(plan.build_dir, plan.downloads)
    made = Build(
        source=source,
        folder=plan.build_dir / "build",
        toolchain=Toolchain(debian, cuda, plan.build_dir / "tools"),
        variant=plan.variant,
    )
    with progress("compiled") as update:
        build(made, update, plan.num_jobs)
    return made


def _finish(
    plan: Plan,
    made: Build,
    folder: Path,
    started: float,
    progress: Progress,
    say: Callable[[str], None],
) -> CudaReport:
    """Fills the folder of the finished Caffe and checks it."""
    with progress("installed") as update:
        trees.finished_tree(made, plan.downloads, folder, update)
    link_driver(folder / DRIVER_FOLDER, driver_libraries())
    say("checking the installation")
    found = FoundCaffe(folder, folder / "usr/bin", True, "just built")
    checks = verify(found, pycaffe=plan.variant.python)
    code = code_in(folder / _LIBRARY)
    wanted = {f"sm_{arch}" for arch in plan.variant.archs}
    if not wanted < set(code):
        raise InstallError(f"libcaffe holds GPU code for {', '.join(code) or 'nothing'} only")
    kit = TOOLKITS[plan.variant.cuda]
    report = CudaReport(
        prefix=plan.prefix,
        version=checks.version,
        cuda=kit.name,
        cudnn=cudnn_version(plan.variant),
        code=code,
        size_bytes=folder_bytes(folder),
        seconds=round(time.monotonic() - started, 1),
        checks=(*checks.passed, f"libcaffe holds {', '.join(code)}"),
    )
    manifest = {
        **report.as_dict(),
        "pycaffe": plan.variant.python,
        "gpu": GpuBuild(kit.name, code, kit.min_driver, report.cudnn).as_dict(),
        "installed": datetime.now().astimezone().isoformat(timespec="seconds"),
        "packages": [package.place for package in packages(plan.variant)],
    }
    text = json.dumps(manifest, indent=2, default=str) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return report
