"""The Caffe that the parts run: one that is installed, or a bundle that was built elsewhere.

A bundle (gpu_parts.bundle makes it) is a folder as install-caffe makes it, without NVIDIA's
libraries. They are taken from where PyTorch has them, in ``site-packages/nvidia``.
"""

from __future__ import annotations

import re
import site
import statistics
import subprocess
import sys
import tarfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.caffe.command import tool_command
from irv2caffe.caffe.find import FoundCaffe, find_caffe
from irv2caffe.caffe.manifest import gpu_build
from irv2caffe.errors import CaffeNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = "test_caffe"
CUDA_LIBRARIES = ("libcudart", "libcublas", "libcublasLt", "libcurand", "libnccl")
_RATE = re.compile(r"Iteration (\d+) \((\S+) iter/s")


@dataclass(frozen=True)
class Caffe:
    """A Caffe, and what it runs on.

    Attributes:
        found: the Caffe.
        gpus: the value of ``-gpu``; empty for the CPU.
    """

    found: FoundCaffe
    gpus: str

    @property
    def cudnn(self) -> bool:
        """Whether it was built with cuDNN."""
        built = gpu_build(self.found.root)
        return built is not None and built.cudnn is not None

    @property
    def device(self) -> tuple[str, ...]:
        """Arguments that name the GPU."""
        return ("-gpu", self.gpus) if self.gpus else ()

    def run(
        self, *words: object, cwd: Path, log: Path, tool: str = "caffe", **env: str
    ) -> int | str:
        """Runs a program of it; its exit code. Output goes to a file."""
        command = tool_command(self.found, tool, tuple(map(str, words)))
        with log.open("wb") as file:
            done = subprocess.run(
                command.argv,
                cwd=cwd,
                env={**command.env, "GLOG_logtostderr": "1", **env},
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        return done.returncode


def open_caffe(args: Any) -> Caffe:
    """The Caffe of ``--caffe`` or the one for GPUs that is installed."""
    from irv2caffe.caffe.capability import find_caffe_for_gpus

    try:
        found = find_caffe(args.caffe) if args.caffe else find_caffe_for_gpus()
    except CaffeNotFoundError as error:
        raise SystemExit(f"left out: {error.message}; {error.hint}") from error
    return Caffe(found, "" if args.cpu else "0")


def unpack(bundle: Path, folder: Path) -> Path:
    """Unpacks a bundle, and links NVIDIA's libraries into it; the folder."""
    with tarfile.open(bundle) as archive:
        archive.extractall(folder, filter="data")
    link_libraries(folder / "cuda/lib", wanted_libraries(folder))
    return folder


def wanted_libraries(folder: Path) -> tuple[str, ...]:
    """The beginnings of the names of NVIDIA's libraries that a Caffe needs."""
    built = gpu_build(folder)
    return (*CUDA_LIBRARIES, *(["libcudnn"] if built and built.cudnn else []))


def link_libraries(folder: Path, wanted: tuple[str, ...]) -> None:
    """Links to the first library of each name; says what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    places = [Path(name) for name in dict.fromkeys([*sys.path, *site.getsitepackages()])]
    found = {
        path.name: path
        for place in reversed([*places, Path("/usr/local/cuda/lib64")])
        for path in _libraries(place, wanted)
    }
    for name, path in found.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(path)
    missing = [each for each in wanted if not any(name.startswith(f"{each}.so") for name in found)]
    if missing:
        print(f"missing: {', '.join(missing)}: is PyTorch for CUDA installed?")


def _libraries(place: Path, wanted: tuple[str, ...]) -> Iterator[Path]:
    folders = [place] if place.name == "lib64" else sorted(place.glob("nvidia/*/lib"))
    for folder in folders:
        for path in sorted(folder.glob("lib*.so.*")):
            name = path.name.partition(".so")[0]
            # cuDNN is several libraries, libcudnn_cnn and others.
            if name in wanted or name.partition("_")[0] in wanted:
                yield path


def rates(log: Path, batch: int) -> list[float]:
    """Images per second between the displays of a log; the first rate is of the start."""
    found = _RATE.findall(log.read_text(errors="replace"))
    return [batch * float(rate) for number, rate in found if int(number) > 0][1:]


def median(values: list[float]) -> float:
    """The median; 0 without values."""
    return statistics.median(values) if values else 0.0


def fatal(log: Path) -> str:
    """The last fatal message in a log, or its last line."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    worst = [line for line in lines if re.match(r"F\d{4} |.*Check failed|.*error while", line)]
    return (worst or lines or ["no output"])[-1][:300]


class PeakMemory:
    """Looks at the used memory of the first GPU five times a second."""

    def __init__(self) -> None:
        self.peak_mib = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i0"]
        while not self._end.wait(0.2):
            try:
                done = subprocess.run(query, capture_output=True, text=True, check=False)
            except OSError:
                return
            said = done.stdout.strip()
            self.peak_mib = max(self.peak_mib, int(said) if said.isdecimal() else 0)
