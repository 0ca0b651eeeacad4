"""Runs a reader on damaged inputs in a process of its own, and sees how it ends.

The process makes the inputs too, each from the seed and its number alone, so that one that dies of
an input is followed by another that goes on behind it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

from helpers.paths import TESTS
from irv2caffe.errors import Irv2CaffeError

MOST_CPU_S = 20.0
MOST_WAIT_S = 120.0
MOST_BYTES = 2_000_000_000
_FILE_BYTES = 4 << 30
_LOOK_S = 0.05
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_SLOW_S = 3.0
_SLOW_S = 3.0
_KEPT_PER_SIGNATURE = 3
READ, REFUSED, REFUSED_SOUND = "read", "refused", "a sound input is refused"
TRACEBACK, HANG, MEMORY, DIED = "traceback", "hang", "memory", "died"


@dataclass
class Ending:
    """How a reader ended on one input."""

    number: int
    how: str
    signature: str = ""
    words: str = ""
    cpu_s: float = 0.0
    peak_bytes: int = 0

    @property
    def is_failure(self) -> bool:
        return self.how not in {READ, REFUSED}


@dataclass
class Tally:
    """What became of the inputs of a reader."""

    reader: str
    inputs: int = 0
    refused: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    kept: list[Path] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)
    slowest_s: float = 0.0
    peak_bytes: int = 0


def fuzz(
    name: str,
    *,
    seed: int = 0,
    inputs: int | None = None,
    seconds: float | None = None,
    keep: Path | None = None,
) -> Tally:
    """Gives a reader so many inputs, or as many as there is time for."""
    tally = Tally(name)
    deadline = None if seconds is None else time.monotonic() + seconds
    number = 0
    with _scratch() as scratch:
        while (inputs is None or number < inputs) and not _is_over(deadline):
            arguments = [
                "--seed",
                str(seed),
                "--start",
                str(number),
                "--stop",
                str(inputs or 1 << 60),
            ]
            with _Worker(name, Path(scratch), arguments) as worker:
                for ending in worker.endings(deadline):
                    _count(tally, ending, worker.case, keep)
                    number = ending.number + 1
                if worker.broken:
                    raise RuntimeError(f"{name}: its inputs cannot be made: {worker.words()}")
    return tally


def try_one(name: str, path: Path) -> Ending:
    """Gives a reader one kept input: a folder of files, or one file."""
    arguments = ["--case", str(path.absolute())]
    with _scratch() as scratch, _Worker(name, Path(scratch), arguments) as worker:
        return next(worker.endings(None))


def _scratch() -> tempfile.TemporaryDirectory:
    """In memory where there is room for it: every input is written."""
    memory = Path("/dev/shm")
    there = memory.is_dir() and shutil.disk_usage(memory).free > 2 * _FILE_BYTES
    return tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if there else None)


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() > deadline


def _count(tally: Tally, ending: Ending, case: Path, keep: Path | None) -> None:
    tally.inputs += 1
    tally.refused += ending.how == REFUSED
    if ending.cpu_s > tally.slowest_s:
        tally.slowest_s = ending.cpu_s
        if keep is not None and ending.cpu_s > _SLOW_S:
            _keep(case, keep / f"{tally.reader}-slowest")
    tally.peak_bytes = max(tally.peak_bytes, ending.peak_bytes)
    if not ending.is_failure:
        return
    before = tally.failures.get(ending.signature, 0)
    tally.failures[ending.signature] = before + 1
    tally.words.setdefault(ending.signature, ending.words)
    if keep is not None and before < _KEPT_PER_SIGNATURE:
        place = keep / f"{tally.reader}-{ending.number}-{ending.how.replace(' ', '-')}"
        _keep(case, place)
        (keep / f"{place.name}.txt").write_text(ending.words, encoding="utf-8")
        tally.kept.append(place)


def _keep(case: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(case, place)


class _Worker:
    """The process of a reader, and how it fares."""

    def __init__(self, name: str, scratch: Path, arguments: list[str]) -> None:
        self.case = scratch / "case"
        self._words = scratch / "words"
        self.broken = False
        command = [sys.executable, "-m", "helpers.fuzz_pool", name, str(scratch), *arguments]
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            bufsize=0,
            stdout=subprocess.PIPE,
            stderr=self._words.open("wb"),
            start_new_session=True,
            cwd=TESTS,
        )

    def words(self) -> str:
        """What it said last."""
        return self._words.read_text(encoding="utf-8", errors="replace")[-2000:]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._child.stdin.close()
        self._child.stdout.close()

    def endings(self, deadline: float | None):
        """How each input ended, until there are no more or the process is lost."""
        number, began_s, used_s, peak = None, 0.0, 0.0, 0
        while True:
            line = self._line()
            if line is None:
                if number is None:
                    continue
                now_s, size = self._usage()
                peak = max(peak, size)
                how = ""
                if peak > MOST_BYTES:
                    how = MEMORY
                elif now_s - used_s > MOST_CPU_S or time.monotonic() - began_s > MOST_WAIT_S:
                    how = HANG
                if how:
                    words = f"{how}: {now_s - used_s:.0f} s, {peak / 1e6:.0f} MB"
                    yield Ending(number, how, how, words, now_s - used_s, peak)
                    return
            elif not line:
                code = self._child.wait()
                self.broken = number is None and code != 0
                if number is not None:
                    words = f"its process ended with {code}"
                    yield Ending(number, DIED, f"{DIED} {code}", words)
                return
            elif "begins" in (answer := json.loads(line)):
                number, began_s, peak = answer["begins"], time.monotonic(), 0
                used_s = answer["used_s"]
            else:
                ending = Ending(**answer)
                ending.peak_bytes = max(ending.peak_bytes, peak)
                if not ending.is_failure and ending.peak_bytes > MOST_BYTES:
                    ending.how = ending.signature = MEMORY
                    ending.words = f"{ending.peak_bytes / 1e6:.0f} MB"
                yield ending
                number = None
                if _is_over(deadline):
                    return
                self._child.stdin.write(b"\n")  # the next one takes its place

    def _line(self) -> bytes | None:
        """What the process says next; None where it says nothing for a moment."""
        ready, _, _ = select.select([self._child.stdout], [], [], _LOOK_S)
        return self._child.stdout.readline() if ready else None

    def _usage(self) -> tuple[float, int]:
        """CPU seconds and memory of the process and of those it started."""
        cpu, size = 0, 0
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError, IndexError):
                stat = (process / "stat").read_text(errors="replace")
                fields = stat.rpartition(")")[2].split()
                if int(fields[3]) == self._child.pid:
                    cpu += sum(map(int, fields[11:15]))
                    size += int(fields[21]) * resource.getpagesize()
        return cpu * _TICK_S, size


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _run(reader, folder: Path, number: int) -> Ending:
    """Reads one input; all but an error of the program's own is a failure."""
    cpu = time.process_time()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the highest memory counts anew
    ending = Ending(number, READ)
    try:
        reader.read(folder)
    except Irv2CaffeError as error:
        ending.how, ending.words = REFUSED, str(error)[:2000]
    except Exception as error:  # noqa: BLE001
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/irv2caffe/" in frame.filename] or frames
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        ending.how, ending.signature = TRACEBACK, f"{type(error).__name__} at {where}"
        ending.words = "".join(traceback.format_exception(error))[-6000:]
    ending.cpu_s = time.process_time() - cpu
    status = Path("/proc/self/status").read_text()
    ending.peak_bytes = int(status.split("VmHWM:")[1].split()[0]) * 1024
    return ending


def _write(case: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(case, ignore_errors=True)
    for name, data in files.items():
        path = case / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _kept(case: Path, path: Path, seeds) -> dict[str, bytes]:
    """The files of a kept input; one file alone stands among the others of a sound input."""
    if path.is_dir():
        inside = (file for file in path.rglob("*") if file.is_file())
        return {str(file.relative_to(path)): file.read_bytes() for file in inside}
    of = next((seed for seed in seeds if path.name in seed.files), seeds[0])
    name = path.name if path.name in of.files else of.damaged[0]
    return {**of.files, name: path.read_bytes()}


def _begin(answers, number: int) -> None:
    print(json.dumps({"begins": number, "used_s": sum(os.times()[:4])}), file=answers)


def main() -> None:
    """The process of a reader: makes inputs, reads them, says how that went."""
    from helpers.fuzz_readers import PROBE, READERS

    parser = argparse.ArgumentParser()
    parser.add_argument("reader")
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--stop", type=int, default=0)
    parser.add_argument("--case", type=Path)
    told = parser.parse_args()
    answers, wake = os.fdopen(os.dup(1), "w", buffering=1), os.fdopen(os.dup(0), "rb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)  # what readers print is not asked for
    _limit()
    reader = {**READERS, PROBE.name: PROBE}[told.reader]
    made = told.scratch / "made"
    made.mkdir(exist_ok=True)
    seeds = reader.seeds(made)
    case = told.scratch / "case"
    os.chdir(told.scratch)
    if told.case is not None:
        _write(case, _kept(case, told.case, seeds))
        _begin(answers, 0)
        print(json.dumps(asdict(_run(reader, case, 0))), file=answers)
        return
    for number in range(told.start, told.stop):
        rng = random.Random(f"{told.seed} {reader.name} {number}")
        _write(case, reader.input(rng, seeds, number))
        _begin(answers, number)
        ending = _run(reader, case, number)
        if number < len(seeds) and ending.how == REFUSED:
            ending.how, ending.signature = REFUSED_SOUND, REFUSED_SOUND
        print(json.dumps(asdict(ending)), file=answers)
        wake.read(1)


if __name__ == "__main__":
    main()
