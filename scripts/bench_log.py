"""How fast logs are read, how much memory that takes, what watching costs.

Three kinds of logs: displays of every iteration; a start, which is the text of the nets and some
lines for each of their layers, with some displays; debug_info.

The yardstick is a straightforward parser: line by line, the date and a search for each kind of fact
in each line, a dictionary for each row. Those are the steps of Caffe's own
tools/extra/parse_log.py; it is written anew here, for Python 3, and collects the facts that ours
does. As there, what comes before the first iteration costs it one search. Both read the same log
and must find the same numbers. They take turns, each in a process of its own; CPU seconds are
compared, since they depend least on what else runs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.log.read.reader import read_log

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
CHILD = """
import json, resource, sys, time
sys.path.insert(0, {scripts!r})
import bench_log, irv2caffe.log.read.fast.blocks  # before the clock starts
read = getattr(bench_log, {name!r})
start_wall, start_cpu = time.perf_counter(), time.process_time()
facts = read({path!r})
wall, cpu = time.perf_counter() - start_wall, time.process_time() - start_cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(dict(wall=wall, cpu=cpu, peak=peak, found=facts())))
"""


def write_log(path: Path, size: int, *, debug: bool = False) -> None:
    """A log of a run that displays and, with ``debug``, prints every blob of every iteration."""
    chance = random.Random(1)  # noqa: S311 - noise
    seconds, iteration, written = 0.0, 0, 0
    with path.open("w", encoding="ascii") as stream:
        while written < size:
            seconds += chance.uniform(0.05, 0.1)
            day, of_day = divmod(int(seconds), 86_400)
            clock = f"{of_day // 3600:02}:{of_day // 60 % 60:02}:{of_day % 60:02}"
            at = f"I11{1 + day % 28:02} {clock}.{int(seconds % 1 * 1e6):06} 18399"
            loss = 7 / (1 + iteration / 1e5) + chance.random() * 0.3
            text = ""
            if debug:
                blob = "    [Forward] Layer conv1, top blob conv1 data"
                text += f"{at} net.cpp:591] {blob}: {loss:.6g}\n" * 400
            if iteration % 2000 == 0:
                text += (
                    f"{at} solver.cpp:347] Iteration {iteration}, Testing net (#0)\n"
                    f"{at} solver.cpp:414]     Test net output #0: top1 = {chance.random():.6g}\n"
                    f"{at} solver.cpp:414]     Test net output #1: top5 = {chance.random():.6g}\n"
                )
            text += (
                f"{at} solver.cpp:239] Iteration {iteration} ({chance.uniform(5, 20):.6g} iter/s, "
                f"{chance.random():.6g}s/1 iters), loss = {loss:.6g}\n"
                f"{at} solver.cpp:258]     Train net output #0: loss = {loss + 0.01:.6g} "
                f"(* 1 = {loss + 0.01:.6g} loss)\n"
                f"{at} sgd_solver.cpp:112] Iteration {iteration}, "
                f"lr = {0.045 * 0.94 ** (iteration // 40_000):.6g}\n"
            )
            stream.write(text)
            written += len(text)
            iteration += 1


def write_start(path: Path, net: Path, num_displays: int) -> None:
    """A log of a run whose nets are printed and set up, and which then displays a few times."""
    text = re.sub(r"^#.*\n|^ *\n", "", net.read_text(encoding="utf-8"), flags=re.MULTILINE)
    names = re.findall(r'^  name: "(.*)"', text, re.MULTILINE)
    at = "I1101 00:00:00.000000 18399"
    lines = [f"{at} solver.cpp:44] Initializing solver from parameters: ", "base_lr: 0.045"]
    for phase in ("TRAIN", "TEST"):
        lines += [f"{at} net.cpp:51] Initializing net from parameters: ", "state {"]
        lines += [f"  phase: {phase}", "}", *text.splitlines()]
        lines += [line for name in names for line in _set_up(at, name)]
        lines += [f"{at} net.cpp:200] {name} needs backward computation." for name in names]
    for iteration in range(num_displays):
        loss = 7 / (1 + iteration / 100)
        rate = f"Iteration {iteration} (1 iter/s, 1s/1 iters)"
        weighted = f"loss = {loss:g} (* 1 = {loss:g} loss)"
        lines.append(f"{at} solver.cpp:239] {rate}, loss = {loss:g}")
        lines.append(f"{at} solver.cpp:258]     Train net output #0: {weighted}")
        lines.append(f"{at} sgd_solver.cpp:112] Iteration {iteration}, lr = 0.045")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _set_up(at: str, name: str) -> list[str]:
    """What Caffe says when it makes a layer."""
    return [
        f"{at} layer_factory.hpp:77] Creating layer {name}",
        f"{at} net.cpp:84] Creating Layer {name}",
        f"{at} net.cpp:406] {name} <- {name}_bottom",
        f"{at} net.cpp:380] {name} -> {name}",
        f"{at} net.cpp:122] Setting up {name}",
        f"{at} net.cpp:129] Top shape: 32 320 35 35 (12544000)",
        f"{at} net.cpp:137] Memory required for data: 8759816596",
    ]


def ours(path: str) -> Callable[[], list[float]]:
    """Reads a log with irv2caffe; returns what tells the numbers that it found."""
    log = read_log(Path(path))
    return lambda: _facts(
        log.train.iteration,
        log.train.loss,
        log.train.lr,
        [log.train.time_us[-1] / 1e6],
        list(log.outputs["loss"].values()),
        [point.outputs["top1"] for point in log.test if point.outputs],
    )


def yardstick(path: str) -> Callable[[], list[float]]:
    """Reads a log line by line; returns what tells the numbers that it found."""
    iteration_of = re.compile(r"Iteration (\d+)")
    rate_of = re.compile(r"lr = ([-+.\w]+)")
    loss_of = re.compile(r", loss = ([-+.\w]+)")
    train_of = re.compile(r"Train net output #(\d+): (\S+) = ([-+.\w]+)")
    test_of = re.compile(r"Test net output #(\d+): (\S+) = ([-+.\w]+)")
    iteration = -1
    start = None
    state = {"lr": math.nan, "smoothed": math.nan}
    train: list[dict[str, Any]] = []
    test: list[dict[str, Any]] = []
    rates = []
    with Path(path).open(encoding="utf-8") as stream:
        for line in stream:
            found = iteration_of.search(line)
            if found:
                iteration = int(found.group(1))
            if iteration == -1:
                continue
            try:
                when = _date(line)
            except (ValueError, IndexError):
                continue  # a line of a net's text
            if start is None:
                start = when
            state["seconds"] = (when - start).total_seconds()
            found = rate_of.search(line)
            if found:
                state["lr"] = float(found.group(1))
                rates.append(state["lr"])
            found = loss_of.search(line)
            if found:
                state["smoothed"] = float(found.group(1))
            _net_output(train_of, train, line, iteration, state)
            _net_output(test_of, test, line, iteration, state)
    return lambda: _facts(
        [row["iteration"] for row in train],
        [row["smoothed"] for row in train],
        rates,
        [train[-1]["seconds"]],
        [row["loss"] for row in train],
        [row["top1"] for row in test],
    )


def _net_output(
    pattern: re.Pattern[str],
    rows: list[dict[str, Any]],
    line: str,
    iteration: int,
    state: dict[str, float],
) -> None:
    """Adds an output to the row of its iteration."""
    found = pattern.search(line)
    if found is None:
        return
    if not rows or rows[-1]["iteration"] != iteration:
        rows.append({"iteration": iteration, **state})
    rows[-1][found.group(2)] = float(found.group(3))


def _date(line: str) -> datetime.datetime:
    words = line.strip().split()
    clock = words[1]
    point = clock.rfind(".")
    hour, minute, second = (int(part) for part in clock[:point].split(":"))
    month, day, fraction = int(words[0][1:3]), int(words[0][3:]), int(clock[point + 1 :])
    return datetime.datetime(2025, month, day, hour, minute, second, fraction)


def _facts(*columns: Any) -> list[float]:
    """Numbers to compare two parsers by."""
    return [float(value) for column in columns for value in (len(column), np.sum(column))]


def measure(name: str, path: Path) -> dict[str, Any]:
    """One reading in a process of its own."""
    code = CHILD.format(scripts=str(Path(__file__).parent), name=name, path=str(path))
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare(path: Path, repeat: int) -> None:
    """Both parsers in turns."""
    print(f"  {path.stat().st_size / 1e6:,.1f} MB")
    runs: dict[str, list[dict[str, Any]]] = {"yardstick": [], "ours": []}
    for _ in range(repeat):
        for name, found in runs.items():
            found.append(measure(name, path))
    if not np.allclose(runs["ours"][0]["found"], runs["yardstick"][0]["found"], rtol=1e-9):
        sys.exit("the two parsers do not find the same")
    ratios = [a["cpu"] / b["cpu"] for a, b in zip(runs["yardstick"], runs["ours"], strict=True)]
    for name, found in runs.items():
        cpu, wall, peak = (
            statistics.median(run[key] for run in found) for key in ("cpu", "wall", "peak")
        )
        print(f"  {name:<10} {cpu:6.2f} s CPU, {wall:6.2f} s, {peak:7.1f} MB at most")
    print(
        f"  ratio of CPU seconds: median {statistics.median(ratios):.2g}, "
        f"from {min(ratios):.2g} to {max(ratios):.2g}, n = {repeat}"
    )


def memory(folder: Path, size: int) -> None:
    """Ours on a log of debug_info: few rows, many lines."""
    path = folder / "debug.log"
    write_log(path, size, debug=True)
    found = measure("ours", path)
    rows, rate = found["found"][0], path.stat().st_size / 1e6 / found["cpu"]
    print(
        f"  {path.stat().st_size / 1e6:,.0f} MB, {rows:,.0f} rows: "
        f"{found['peak']:.1f} MB at most, {rate:.0f} MB per second of CPU"
    )


def follow(folder: Path, seconds: float) -> None:
    """The share of a core that ``plot-log --watch`` takes while a log grows."""
    path = folder / "growing.log"
    write_log(path, 3_000_000)
    lines = path.read_text(encoding="ascii").splitlines(keepends=True)
    start = len(lines) // 2
    path.write_text("".join(lines[:start]), encoding="ascii")
    command = [sys.executable, "-m", "irv2caffe", "plot-log", str(path), "--watch"]
    command += ["--out", str(folder / "f.png"), "--html", str(folder / "r.html")]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (folder / "r.html").exists():
            time.sleep(0.1)
        time.sleep(1)
        before, began, place = _cpu(child.pid), time.monotonic(), start
        writes = 0
        while time.monotonic() - began < seconds:
            with path.open("a", encoding="ascii") as stream:  # a display every half second
                stream.writelines(lines[place : place + 3])
            place += 3
            writes += 1
            time.sleep(0.5)
        share = (_cpu(child.pid) - before) / (time.monotonic() - began)
        changed = (folder / "f.png").stat().st_mtime
    finally:
        child.kill()
        child.wait()
    print(
        f"  {100 * share:.2f} % of a core over {seconds:.0f} s, {writes} displays; figure and "
        f"report, the last of them {time.time() - changed:.0f} s old"
    )


def _cpu(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="scripts/bench log", description=__doc__)
    parser.add_argument("--size-mb", type=int, default=100, help="of the log [100]")
    parser.add_argument("--repeat", type=int, default=5, help="readings of each [5]")
    parser.add_argument(
        "--follow-s", type=float, default=300, help="of watching; 0 leaves it out [300]"
    )
    args = parser.parse_args()
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    print(
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores; "
        f"Python {platform.python_version()}, numpy {np.__version__}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "display1.log"
        write_log(log, args.size_mb * 1_000_000)
        print("reading displays of every iteration")
        compare(log, args.repeat)
        net = ROOT / "templates" / "slim" / "train_val.prototxt"
        for number in (20, 2000):
            start = folder / "start.log"
            write_start(start, net, number)
            print(f"reading the start of a net of {net.stat().st_size / 1e6:.1f} MB", end="")
            print(f" and {number:,} displays")
            compare(start, args.repeat)
        debug = folder / "debug.log"
        write_log(debug, args.size_mb * 300_000, debug=True)
        print("reading debug_info")
        compare(debug, args.repeat)
        print("memory where few lines are rows")
        memory(folder, args.size_mb * 1_000_000)
        if args.follow_s:
            print("watching a log that grows")
            follow(folder, args.follow_s)


if __name__ == "__main__":
    main()
