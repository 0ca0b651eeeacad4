"""The torch engine against the real Caffe on the CPU: training images per second, peak memory.

Usage: scripts/bench engine [--variant V] [--crop N] [--batch N] [--iterations N] [--rounds N]
    [--threads N]

Both programs train the same solver and net from the same database with as many threads, in turns,
each as a whole command: ``caffe train`` and ``python -m irv2caffe.engine train --exact``. The time
of an iteration is that between the lines of its displays in their logs; the first ones are left
out. Memory is the largest resident set of the process. On a busy machine the ratio of two processes
that ran one after the other means little; run it on a quiet one.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np

from irv2caffe import system
from irv2caffe.caffe.command import tool_command
from irv2caffe.caffe.find import find_caffe
from irv2caffe.config import SolverOptions, net_options
from irv2caffe.data.lmdb_store import DatabaseWriter
from irv2caffe.data.records.datum import record_key
from irv2caffe.net.build import build_net
from irv2caffe.proto import messages
from irv2caffe.proto.text import read_prototxt, write_prototxt

NUM_TRAIN, NUM_VAL = 64, 10
FIRST = 3  # iterations that are left out
STAMP = re.compile(
    r"^I\d+ (\d\d):(\d\d):(\d\d\.\d+) .*\] Iteration \d+ ?\(?.*loss = ", re.MULTILINE
)
# In a process of its own, since the largest memory of children is that of all of them so far.
MEASURED = """
import json, os, resource, subprocess, sys
with open(sys.argv[1], "w") as log:
    done = subprocess.run(sys.argv[2:], stderr=log)
print(json.dumps([done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))
"""


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        rate: images per second, from the median iteration.
        memory_mb: largest resident set.
    """

    rate: float
    memory_mb: float


def make_job(folder: Path, args: argparse.Namespace) -> Path:
    """Databases of noise, the net, a solver."""
    rng = np.random.default_rng(0)
    size = args.crop + 8
    for part, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        place = folder / f"{part}_lmdb"
        place.mkdir()
        with DatabaseWriter(place) as writer:
            for index in range(count):
                datum = messages.Datum(channels=3, height=size, width=size, label=index % 10)
                datum.data = rng.integers(0, 256, (3, size, size), np.uint8).tobytes()
                writer.put(record_key(index, f"{index}.png"), datum.SerializeToString())
    options = net_options(
        variant=args.variant,
        crop=args.crop,
        num_classes=1000,
        batch_size=args.batch,
        train_lmdb=str(folder / "train_lmdb"),
        val_lmdb=str(folder / "val_lmdb"),
    )
    build_net(
        folder / "net", options, SolverOptions(epochs=1), num_train=NUM_TRAIN, num_val=NUM_VAL
    )
    path = folder / "net/solver.prototxt"
    solver = read_prototxt(path, messages.SolverParameter)
    solver.max_iter = args.iterations
    solver.display = 1
    solver.test_interval = solver.snapshot = 10**6
    solver.snapshot_after_train = False
    solver.test_initialization = False
    write_prototxt(path, solver)
    return path


def train(command: list[str], env: dict[str, str], args: argparse.Namespace) -> Run:
    """Runs a program to its end."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        measured = [sys.executable, "-c", MEASURED, str(log), *command]
        done = subprocess.run(measured, env=env, capture_output=True, text=True, check=True)
        code, memory_mb = map(float, re.findall(r"[\d.]+", done.stdout))
        text = log.read_text(errors="replace")
    if code:
        raise SystemExit(f"{command}: exit code {code}\n{text[-2000:]}")
    stamps = [
        int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        for hours, minutes, seconds in STAMP.findall(text)
    ]
    times = [(end - start) % 86_400 for start, end in pairwise(stamps)]
    return Run(args.batch / statistics.median(times[FIRST:]), memory_mb)


def programs(solver: Path, num_threads: int) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Command line and environment of both."""
    caffe = tool_command(find_caffe(), "caffe", ["train", "-solver", str(solver)])
    threads = {name: str(num_threads) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    engine = [sys.executable, "-m", "irv2caffe.engine", "train", "-solver", str(solver), "--exact"]
    return {
        "Caffe": ([*caffe.argv], {**caffe.env, **threads, "GLOG_logtostderr": "1"}),
        "engine": (engine, {**os.environ, **threads}),
    }


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="slim")
    parser.add_argument("--crop", type=int, default=139)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    print(
        f"{system.machine()['cpu']}, {args.threads} threads, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, torch {version('torch')}; "
        f"{args.variant}, crop {args.crop}, batch {args.batch}, n = {args.rounds}"
    )
    runs: dict[str, list[Run]] = {}
    with tempfile.TemporaryDirectory() as folder:
        solver = make_job(Path(folder), args)
        for _ in range(args.rounds):
            for name, (command, env) in programs(solver, args.threads).items():
                runs.setdefault(name, []).append(train(command, env, args))
                print(f"  {name}: {runs[name][-1].rate:.2f} images/s", flush=True)
    for name, each in runs.items():
        rate = statistics.median(run.rate for run in each)
        memory = statistics.median(run.memory_mb for run in each)
        print(f"{name:8} {rate:8.2f} images/s {memory:8,.0f} MB")
    pairs = list(zip(runs["engine"], runs["Caffe"], strict=True))
    speed = [ours.rate / theirs.rate for ours, theirs in pairs]
    memory_ratio = statistics.median(ours.memory_mb / theirs.memory_mb for ours, theirs in pairs)
    print(
        f"engine / Caffe: {statistics.median(speed):.2f} times the images "
        f"({min(speed):.2f} to {max(speed):.2f}), {memory_ratio:.2f} times the memory"
    )


if __name__ == "__main__":
    main()
