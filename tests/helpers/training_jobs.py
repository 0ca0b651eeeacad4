"""A small net that trains in a moment, its run folders, and waits for processes and files."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers.paths import HELPERS
from irv2caffe.data.lmdb_store import DatabaseWriter
from irv2caffe.data.records.datum import record_key
from irv2caffe.proto import messages
from irv2caffe.train.run_dir.snapshots import newest_complete

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.train.run_dir.run_dir import RunDir

STAND_IN = HELPERS / "stand_in_caffe.py"
DOCKER = HELPERS / "stand_in_docker.py"
NUM_TRAIN, NUM_VAL, BATCH = 64, 20, 8
NET = """
name: "tiny"
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
  transform_param {{ scale: 0.01 }}
  data_param {{ source: "{root}/train_lmdb" batch_size: 8 backend: LMDB }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
  transform_param {{ scale: 0.01 }}
  data_param {{ source: "{root}/val_lmdb" batch_size: 10 backend: LMDB }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 4 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
  inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc/top-1"
  include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
"""
SOLVER = {
    "net": '"net.prototxt"', "test_iter": 2, "test_interval": 1000, "base_lr": 0.01,
    "lr_policy": '"step"', "gamma": 0.5, "stepsize": 300, "momentum": 0.9, "display": 10,
    "max_iter": 1000, "snapshot": 200, "snapshot_prefix": '"tiny"', "solver_mode": "CPU",
    "random_seed": 1,
}  # fmt: skip
FOREVER = 100_000_000
PATIENCE_S = 300  # for what takes seconds, on a machine that is busy
_MARK = "IRV2CAFFE_TEST"  # in the environment of all that a test starts
_started: list[subprocess.Popen] = []


def make_databases(root: Path, *, size: int = 10) -> None:
    """64 and 20 dark or bright images of 10x10, or of another size."""
    rng = np.random.default_rng(0)
    for part, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        folder = root / f"{part}_lmdb"
        folder.mkdir()
        with DatabaseWriter(folder) as writer:
            for index in range(count):
                pixels = rng.integers(0, 100, (size, size, 3)) + index % 2 * 120
                datum = messages.Datum(channels=3, height=size, width=size, label=index % 2)
                datum.data = pixels.astype(np.uint8).transpose(2, 0, 1).tobytes()
                writer.put(record_key(index, f"{index}.png"), datum.SerializeToString())


def write_job(root: Path, folder: Path, **changes: object) -> Path:
    """The net and a solver in a folder; None takes a field away."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.prototxt").write_text(NET.format(root=root))
    fields = {**SOLVER, "net": f'"{folder}/net.prototxt"', **changes}
    text = "".join(f"{name}: {value}\n" for name, value in fields.items() if value is not None)
    (folder / "solver.prototxt").write_text(text)
    return folder / "solver.prototxt"


def newest(run: RunDir) -> int:
    """The iteration of the newest whole snapshot, or 0."""
    pair, _ = newest_complete(run.snapshots)
    return pair.iteration if pair is not None else 0


def make_stand_in(folder: Path) -> Path:
    """A folder with a program ``caffe`` that is none."""
    folder.mkdir(exist_ok=True)
    program = folder / "caffe"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{STAND_IN}' \"$@\"\n")
    program.chmod(0o755)
    return folder


def make_docker(folder: Path) -> dict[str, str]:
    """The environment in which ``docker`` is the stand-in; the real Caffe works inside of it."""
    program = folder / "bin/docker"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{DOCKER}' \"$@\"\n")
    program.chmod(0o755)
    return {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "DOCKER_STATE": str(folder),
        "DOCKER_CAFFE": shlex.join([sys.executable, "-m", "irv2caffe", "caffe"]),
    }


def contents(folder: Path) -> dict[Path, bytes]:
    """All files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def database_contents(folder: Path) -> dict[str, bytes]:
    """The bytes of everything that making a database again must repeat."""
    files = (path for path in folder.iterdir() if path.name not in {"manifest.json", "lock.mdb"})
    return {path.name: path.read_bytes() for path in files}


def irv2caffe(*args: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess:
    """The program as a user runs it, to its end."""
    return subprocess.run(
        command(*args),
        cwd=cwd,
        env=_environment(env),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def _environment(changes: dict[str, str]) -> dict[str, str]:
    return {**os.environ, _MARK: str(os.getpid()), **changes}


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "irv2caffe", "train", "--no-plot", *map(str, args)]


def start(*args: object, cwd: Path, **env: str) -> subprocess.Popen:
    """The program as a user starts it; :func:`end_started` ends it where a test fails before."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return start_with(args, cwd=cwd, env=env, **pipes)


def start_with(args, cwd: Path, env: dict[str, str], **options) -> subprocess.Popen:
    """The same with other streams."""
    child = subprocess.Popen(command(*args), cwd=cwd, env=_environment(env), **options)
    _started.append(child)
    return child


@contextmanager
def child_of_test(argv: list[str], **options) -> Iterator[subprocess.Popen]:
    """A process that ends with the block, also where a test fails in it."""
    with subprocess.Popen(argv, **options) as child:
        try:
            yield child
        finally:
            child.kill()


def end_started() -> None:
    """Ends what :func:`start` has started, and every Caffe of it, also one that is stopped."""
    if not _started:
        return
    while _started:
        with _started.pop() as child:
            child.kill()
    mark = f"{_MARK}={os.getpid()}\0".encode()
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdecimal() and mark in (folder / "environ").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)


def wait_for(condition, what: str = "", seconds: float = PATIENCE_S):
    """Until something is true; returns it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited in vain {what}")


def wait_for_text(path: Path, text: str) -> None:
    """Until a growing file holds a text."""
    wait_for(lambda: path.is_file() and text in path.read_text(errors="replace"), f"for {text!r}")


def caffe_pid(run: Path) -> int:
    """The Caffe that works in a run folder now, as the lock says."""
    return wait_for(lambda: _child_pid(run), "for a child")


def _child_pid(run: Path) -> int:
    try:
        pid = json.loads((run / "lock").read_text())["child_pid"]
    except (OSError, ValueError):
        return 0
    return pid if pid and Path(f"/proc/{pid}").exists() else 0


def config(run: Path) -> dict:
    return json.loads((run / "config.json").read_text())


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def is_pending(pid: int, number: int) -> bool:
    """Whether a signal was sent to a process that blocks it or is stopped."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = re.findall(r"^(?:SigPnd|ShdPnd):\s*(\w+)$", status, re.MULTILINE)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"
