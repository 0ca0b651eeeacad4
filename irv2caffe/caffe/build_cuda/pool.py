"""Runs compilers in parallel; the first failure stops the others."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from irv2caffe import system
from irv2caffe.errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_MEMORY_PER_JOB_BYTES = 1 << 30  # nvcc took 0.8 GB
_SHOWN = 600
_DISK_FULL = "No space left on device"


@dataclass(frozen=True)
class Job:
    """A program that makes one file.

    Attributes:
        argv: program and arguments; ``output`` is not among them.
        output: the file that the program is told to write with ``-o``; it appears only when the
            program has succeeded.
        name: for messages.
    """

    argv: tuple[str, ...]
    output: Path
    name: str


@dataclass
class _Running:
    """The children that run now."""

    children: set[subprocess.Popen[bytes]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: bool = False

    def start(self, argv: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
        """Starts a program in its own process group, unless all were stopped."""
        with self.lock:
            if self.stopped:
                return None
            child = subprocess.Popen(
                argv,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.children.add(child)
            return child

    def stop(self) -> None:
        """Kills all children, and starts no more."""
        with self.lock:
            self.stopped = True
            for child in self.children:
                system.kill_group(child)


def num_jobs() -> int:
    """Returns how many compilers run at a time: one per core, if the memory suffices."""
    fit = system.total_memory_bytes() // _MEMORY_PER_JOB_BYTES
    return max(1, min(system.num_cores(), fit))


def run_jobs(
    jobs: Sequence[Job],
    env: Mapping[str, str],
    update: Callable[[int, int], None] = lambda *_: None,
    workers: int | None = None,
) -> None:
    """Runs all jobs whose output does not exist yet.

    Args:
        jobs: what to run, in this order.
        env: the whole environment of the programs.
        update: called with the numbers of finished and of all jobs.
        workers: how many run at a time; by default :func:`num_jobs`.

    Raises:
        InstallError: a program failed; the finished outputs remain for the next run.
    """
    missing = [job for job in jobs if not job.output.is_file()]
    done = len(jobs) - len(missing)
    running = _Running()
    update(done, len(jobs))
    with ThreadPoolExecutor(workers or num_jobs()) as pool:
        try:
            futures = {pool.submit(_run, job, env, running) for job in missing}
            while futures:
                finished, futures = wait(futures, timeout=1, return_when=FIRST_EXCEPTION)
                for future in finished:
                    future.result()
                done = len(jobs) - sum(not job.output.is_file() for job in missing)
                update(done, len(jobs))
        finally:
            running.stop()
            pool.shutdown(cancel_futures=True)


def _run(job: Job, env: Mapping[str, str], running: _Running) -> None:
    job.output.parent.mkdir(parents=True, exist_ok=True)
    # The compilers of a build that was killed may still be writing under its number.
    aside = job.output.with_name(f".partial-{os.getpid()}-{job.output.name}")
    child = running.start((*job.argv, "-o", str(aside)), env)
    if child is None:
        return
    try:
        said, _ = child.communicate()
    finally:
        running.children.discard(child)
    if child.returncode == 0:
        aside.replace(job.output)
        return
    with suppress(OSError):
        aside.unlink()
    if not running.stopped:
        raise _failure(job, child.returncode, said.decode("utf-8", "replace"))


def _failure(job: Job, status: int, said: str) -> InstallError:
    if _DISK_FULL in said:
        return InstallError(
            f"the disk is full while compiling {job.name}",
            "free some space, or choose a folder on another disk with --prefix; what is compiled "
            "is kept for the next run",
        )
    if status == -signal.SIGKILL or "Killed signal" in said or "Killed" in said.splitlines()[-1:]:
        return InstallError(
            f"the compiler was killed while compiling {job.name}",
            "if memory ran out: run again with fewer --jobs; what is compiled is kept",
        )
    errors = [line for line in said.splitlines() if "error" in line.lower() or "undefined" in line]
    shown = "; ".join(errors[:3]) or said.strip()[-_SHOWN:]
    return InstallError(f"compiling {job.name} failed: {shown[:_SHOWN]}")
