"""What supervision costs: a training by ``irv2caffe train`` against the bare binary.

Usage: scripts/bench train-overhead [--runs N] [--iterations N] [--lines N]

1. The same solver and net (the paper's net at a quarter of its width, 75 pixels, batch 16), run in
   turns by the bare ``caffe train`` and by ``irv2caffe train`` with all it does: progress, metrics,
   snapshots verified, plot refreshed. Compared are the times from Caffe's first iteration to its
   last line, as its log has them, pair by pair.
2. A million lines of log from a stand-in: the memory of the trainer while they come.
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
import time
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

BATCH, NUM_TRAIN, NUM_VAL = 16, 640, 100
STAMP = re.compile(
    r"^I\d+ (\d\d):(\d\d):(\d\d\.\d+) .*\] (Iteration 0 \(|Optimization Done)", re.MULTILINE
)
PRINTER = """
import sys, time
if "--version" in sys.argv:
    print("caffe version 1.0.0")
    sys.exit()
for at in range({lines} // 4):
    clock = f"{{at // 3600000 % 24:02}}:{{at // 60000 % 60:02}}:{{at // 1000 % 60:02}}"
    start = f"I1124 {{clock}}.{{at % 1000:03}}000 100 solver.cpp:239]"
    sys.stderr.write(
        f"{{start}} Iteration {{at}} (1.5 iter/s, 6s/10 iters), loss = 0.5\\n"
        f"{{start}}     Train net output #0: loss = 0.5 (* 1 = 0.5 loss)\\n"
        f"{{start}} Iteration {{at}}, lr = 0.01\\n"
        f"{{start}} MultiStep Status: Iteration {{at}}, step = 1\\n"
    )
    if at % 1000 == 0:
        sys.stderr.flush()
        time.sleep({pause})
"""


def make_job(folder: Path, iterations: int) -> Path:
    """Databases of noise, the net, a solver."""
    rng = np.random.default_rng(0)
    for part, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        place = folder / f"{part}_lmdb"
        place.mkdir()
        with DatabaseWriter(place) as writer:
            for index in range(count):
                datum = messages.Datum(channels=3, height=80, width=80, label=index % 10)
                datum.data = rng.integers(0, 256, (3, 80, 80), np.uint8).tobytes()
                writer.put(record_key(index, f"{index}.png"), datum.SerializeToString())
    options = net_options(
        variant="paper",
        crop=75,
        width=0.25,
        num_classes=10,
        batch_size=BATCH,
        train_lmdb=str(folder / "train_lmdb"),
        val_lmdb=str(folder / "val_lmdb"),
    )
    build_net(
        folder / "net", options, SolverOptions(epochs=1), num_train=NUM_TRAIN, num_val=NUM_VAL
    )
    path = folder / "net/solver.prototxt"
    solver = read_prototxt(path, messages.SolverParameter)
    solver.max_iter = iterations
    solver.test_interval = max(1, iterations // 2)
    solver.snapshot = max(1, iterations // 2)
    solver.display = 1
    write_prototxt(path, solver)
    return path


def training_s(log: str) -> float:
    """From the first iteration to the end, by the log's own stamps."""
    found = [
        int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        for hours, minutes, seconds, _ in STAMP.findall(log)
    ]
    return (found[-1] - found[0]) % 86_400


def bare(solver: Path) -> float:
    """The binary alone."""
    command = tool_command(find_caffe(), "caffe", ["train", "-solver", str(solver)])
    env = {**command.env, "GLOG_logtostderr": "1"}
    with tempfile.TemporaryFile() as log:
        subprocess.run(command.argv, env=env, stderr=log, check=True)
        log.seek(0)
        return training_s(log.read().decode("utf-8", "replace"))


def supervised(solver: Path, run: Path) -> tuple[float, float, float]:
    """(training time, whole time, processor time of all but Caffe while it trained)."""
    command = [sys.executable, "-m", "irv2caffe", "train", "--solver", str(solver)]
    began = time.monotonic()
    with subprocess.Popen(
        [*command, "--run-dir", str(run)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        first = last = None
        while child.poll() is None:
            used = cpu_s(child.pid)
            log = run / "train.log"
            if used is not None and log.is_file():
                tail = end_of(log)
                if b"Iteration" in tail and first is None:
                    first = used
                if b"Optimization Done" not in tail:
                    last = used
            time.sleep(1)  # looking costs time, too, which the bare binary does not have to pay
        if child.returncode != 0:
            raise SystemExit(f"the training in {run} failed")
    whole_s = time.monotonic() - began
    log_text = (run / "train.log").read_text(errors="replace")
    return training_s(log_text), whole_s, (last or 0.0) - (first or 0.0)


def end_of(path: Path) -> bytes:
    """The last bytes of a file that may be long."""
    with path.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - 400))
        return stream.read()


def cpu_s(pid: int) -> float | None:
    """Processor time of a process and of those that it has waited for, as for a figure."""
    try:
        parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return sum(map(int, parts[11:15])) / os.sysconf("SC_CLK_TCK")


def compare(folder: Path, runs: int, iterations: int) -> None:
    """Alternates the two, and prints the ratios."""
    solver = make_job(folder, iterations)
    bare(solver)  # the databases are in memory then
    ratios, shares, around = [], [], []
    for number in range(runs):
        order = [0, 1] if number % 2 == 0 else [1, 0]
        seconds = [0.0, 0.0]
        for which in order:
            if which == 0:
                seconds[0] = bare(solver)
            else:
                run = folder / f"run-{number}"
                seconds[1], whole_s, used_s = supervised(solver, run)
                shares.append(used_s / seconds[1])
                around.append(whole_s - seconds[1])
        ratios.append(seconds[1] / seconds[0])
        print(f"  bare {seconds[0]:7.2f} s  train {seconds[1]:7.2f} s  ratio {ratios[-1]:.4f}")
    low, _, high = statistics.quantiles(ratios) if runs > 1 else (ratios[0],) * 3
    print(f"training time, train / bare: median {statistics.median(ratios):.4f} "
          f"(quartiles {low:.4f}, {high:.4f}), n={runs}, "
          f"{iterations} iterations, a line of log for each")  # fmt: skip
    print(f"processor time of the trainer and of its figures: "
          f"{100 * statistics.median(shares):.2f} % of it")  # fmt: skip
    print(f"before the first iteration and after the last: {statistics.median(around):.1f} s once")


def memory(folder: Path, lines: int) -> None:
    """Samples the trainer's memory while lines come, and prints how it grew."""
    program = folder / "printer/caffe"
    program.parent.mkdir()
    code = PRINTER.format(lines=lines, pause=0.02)
    program.write_text(f"#!{sys.executable}\n{code}")
    program.chmod(0o755)
    solver = folder / "net/solver.prototxt"
    run = folder / "run-lines"
    command = [sys.executable, "-m", "irv2caffe", "train", "--solver", str(solver), "--no-plot"]
    more = ["--run-dir", str(run), "--caffe", str(program.parent), "--max-restarts", "0"]
    samples: list[tuple[int, int]] = []
    with subprocess.Popen(
        [*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        metrics = run / "metrics.jsonl"
        while child.poll() is None:
            rss = memory_bytes(child.pid)
            if rss and metrics.is_file():
                samples.append((metrics.stat().st_size, rss))
            time.sleep(0.1)
    size = metrics.stat().st_size
    print(f"{lines:,} lines of log, {size / 1e6:.0f} MB of metrics from them")
    for share in (0.1, 0.25, 0.5, 0.75, 0.99):
        rss = next(rss for at, rss in samples if at >= share * size)
        print(f"  after {100 * share:3.0f} %: the trainer holds {rss / 1e6:.1f} MB")
    print(f"  at most, with the summary at the end: {max(rss for _, rss in samples) / 1e6:.1f} MB")


def memory_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--lines", type=int, default=1_000_000)
    args = parser.parse_args()
    machine = system.machine()
    print(f"{machine['cores']} cores of {machine['cpu']}, {platform.platform()}, "
          f"Python {platform.python_version()}, {find_caffe().name}")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="irv2caffe-bench-") as name:
        compare(Path(name), args.runs, args.iterations)
        memory(Path(name), args.lines)


if __name__ == "__main__":
    main()
