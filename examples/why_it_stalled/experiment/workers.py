"""Processes that do runs side by side, each many of them."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from experiment.arms import Arm, Size
from experiment.one_run import Run, do_run
from experiment.results import KEY
from irv2caffe.system import kill_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Line = dict[str, Any]

_HERE = Path(__file__).resolve().parent.parent
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Workers:
    """Processes that take runs from a common list until it is empty or the time is over."""

    def __init__(self, deadline: float) -> None:
        """Nothing starts yet; the deadline is one of time.monotonic."""
        self._deadline = deadline
        self._children: set[subprocess.Popen[bytes]] = set()
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the processes."""
        with self._lock:
            self._over.set()
            for child in self._children:
                kill_group(child)

    def do(self, count: int, runs: Iterable[Run], done: Callable[[Line], None]) -> None:
        """Does the runs in their order; what is not done at the deadline is left out.

        Args:
            count: number of processes.
            runs: to be done.
            done: called with the line of each run, by one thread at a time.
        """
        waiting: queue.SimpleQueue[Run] = queue.SimpleQueue()
        for run in runs:
            waiting.put(run)
        threads = [
            threading.Thread(target=self._work, args=(waiting, done), daemon=True)
            for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, self._deadline - time.monotonic()))
        if time.monotonic() >= self._deadline:
            self.__exit__()
        for thread in threads:
            thread.join()

    def _work(self, waiting: queue.SimpleQueue[Run], done: Callable[[Line], None]) -> None:
        """What one thread does with one process at a time."""
        child: subprocess.Popen[bytes] | None = None
        while not self._over.is_set():
            try:
                run = waiting.get_nowait()
            except queue.Empty:
                break
            child = child or self._next()
            line = _ask(child, run) if child is not None else None
            with self._lock:
                if self._over.is_set():
                    break
                if line is None:
                    line, child = _failed(run, f"its process has ended: {_status(child)}"), None
                done(line)
        if child is not None:
            self._idle.put(child)

    def _next(self) -> subprocess.Popen[bytes] | None:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._start()

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._over.is_set():
                return None
            child = subprocess.Popen(
                [sys.executable, "-m", "experiment.workers"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **_ONE_THREAD, "PYTHONPATH": _python_path()},
                start_new_session=True,
            )
            self._children.add(child)
            return child


def _python_path() -> str:
    given = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(_HERE), *([given] if given else [])])


def _ask(child: subprocess.Popen[bytes], run: Run) -> Line | None:
    """The line of a run; None if the process has ended."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(asdict(run), default=str).encode() + b"\n")
        child.stdin.flush()
    except OSError:
        return None
    answer = child.stdout.readline()
    return json.loads(answer) if answer.endswith(b"\n") else None


def _status(child: subprocess.Popen[bytes] | None) -> str:
    return f"status {child.wait()}" if child is not None else "at the end of the time"


def _failed(run: Run, why: str) -> Line:
    return {**dict(zip(KEY, run.key, strict=True)), "error": why[:500]}


def serve(requests: Iterable[bytes], answers: IO[bytes]) -> None:
    """Does the runs that another process asks for, a line of JSON each."""
    for request in requests:
        run = _run_of(json.loads(request))
        try:
            line = do_run(run)
        except Exception as error:  # noqa: BLE001 - recorded; the other runs go on
            line = _failed(run, f"{type(error).__name__}: {' '.join(str(error).split())}")
        try:
            answers.write(json.dumps(line).encode() + b"\n")
            answers.flush()
        except BrokenPipeError:  # the other process has been killed
            return


def _run_of(values: dict[str, Any]) -> Run:
    arm, size = values["arm"], values["size"]
    made_arm = Arm(**{**arm, "scale": tuple(arm["scale"]) if arm["scale"] else None})
    made_size = Size(**{**size, "blocks": tuple(size["blocks"])})
    return Run(**{**values, "data": Path(values["data"]), "arm": made_arm, "size": made_size})


if __name__ == "__main__":
    private = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print does not get between the answers
    serve(sys.stdin.buffer, private)
