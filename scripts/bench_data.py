"""make-lmdb against convert_imageset and against bare decoding: images per second, memory.

Usage: scripts/bench data [--images N] [--repeats R] [--folder DIR] [--quick]

Draws photo-like JPEG files (about 500x375, 100 kB), builds the same databases with the real
convert_imageset and with make-lmdb, and decodes, resizes (and encodes) the same files in threads
without storing anything. Whole commands are timed, start-up included; all of them take turns, and
the table shows medians. The databases are written to DIR (memory where there is room, so that the
disk does not decide), one at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from irv2caffe import system
from irv2caffe.caffe.command import Command, tool_command
from irv2caffe.caffe.find import find_caffe
from irv2caffe.errors import CaffeNotFoundError

PROGRAM = [sys.executable, "-m", "irv2caffe", "make-lmdb"]
SIZE = ["-resize_width=328", "-resize_height=328"]
ENCODED = ["-encoded", "-encode_type=jpg"]
BARE = """
import os, sys, threading, time
import cv2
cv2.setNumThreads(1)
root, listing, kind, threads = sys.argv[1:5]
files = [os.path.join(root, line.split()[0]) for line in open(listing)]
def work(part):
    for path in part:
        image = cv2.resize(cv2.imread(path), (328, 328))
        if kind == "jpg":
            cv2.imencode(".jpg", image)
work(files[:50])
start, cpu = time.perf_counter(), time.process_time()
parts = [files[number :: int(threads)] for number in range(int(threads))]
workers = [threading.Thread(target=work, args=(part,)) for part in parts]
for worker in workers: worker.start()
for worker in workers: worker.join()
print(time.perf_counter() - start, time.process_time() - cpu)
"""


def draw_photo(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Noise of many octaves with shapes over it: about what a photo costs a decoder."""
    image = np.full((height, width, 3), 128, np.float32)
    for octave in range(1, 8):
        cells = 2**octave
        noise = rng.normal(0, 1, (cells * height // 256 + 3, cells * width // 256 + 3, 3))
        whole = cv2.resize(noise.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        image += whole * (36 / octave)
    for _ in range(6):
        corners = rng.integers(0, (width, height), (5, 2)).astype(np.int32)
        cv2.fillPoly(image, [corners], rng.normal(128, 60, 3).tolist(), cv2.LINE_AA)
    image += rng.normal(0, 5, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def draw_photos(folder: Path, count: int, sizes: list[tuple[int, int]], quality: int) -> float:
    """Writes JPEG files; their mean size in kB."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    total = 0
    for number in range(count):
        image = draw_photo(rng, *sizes[number % len(sizes)])
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        (folder / f"{number:05d}.jpg").write_bytes(data)
        total += len(data)
    return total / count / 1000


def write_list(folder: Path, path: Path, times: int = 1) -> int:
    """A list of all files in a folder, so many times over; the number of its lines."""
    names = sorted(file.name for file in folder.iterdir())
    lines = [f"{name} {place % 10}\n" for place, name in enumerate(names)]
    path.write_text("".join(lines * times))
    return len(lines) * times


class PeakMemory(threading.Thread):
    """The largest memory of a process and its children, shared pages counted once (PSS)."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.peak_mb = 0.0
        self.is_over = False

    def run(self) -> None:
        """Looks five times a second; looking costs time as well."""
        while not self.is_over:
            self.peak_mb = max(self.peak_mb, sum(map(pss_mb, [self.pid, *children(self.pid)])))
            time.sleep(0.2)


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def pss_mb(pid: int) -> float:
    """Memory of one process; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


@dataclass(frozen=True)
class Run:
    """What a command took: time, time of all cores together, memory."""

    seconds: float
    cpu_seconds: float
    peak_mb: float = 0.0


def cpu_seconds() -> float:
    """Of all processes that this one has started and waited for, and theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(command: list[str], env: dict[str, str] | None = None) -> Run:
    """Runs a command to its end."""
    cpu_before = cpu_seconds()
    start = time.perf_counter()
    with subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        memory = PeakMemory(child.pid)
        memory.start()
        code = child.wait()
        seconds = time.perf_counter() - start
        memory.is_over = True
    if code not in {0, 3}:
        raise SystemExit(f"{' '.join(command[:6])} ... ended with {code}")
    return Run(seconds, cpu_seconds() - cpu_before, memory.peak_mb)


class Bench:
    """The files, the places, and the commands on them."""

    def __init__(self, work: Path, out: Path) -> None:
        self.work = work
        self.out = out / "database"
        self.tool: Command | None
        try:
            self.tool = tool_command(find_caffe(), "convert_imageset")
        except CaffeNotFoundError as error:
            self.tool = None
            print(f"without convert_imageset: {error.message}")

    def clear(self) -> None:
        """Removes the database of the last command."""
        shutil.rmtree(self.out, ignore_errors=True)

    def theirs(self, photos: str, flags: list[str]) -> Run:
        """convert_imageset."""
        assert self.tool is not None
        self.clear()
        paths = [f"{self.work / photos}/", str(self.work / f"{photos}.txt"), str(self.out)]
        return run([*self.tool.argv, *flags, *paths], dict(self.tool.env))

    def ours(self, photos: str, flags: list[str]) -> Run:
        """make-lmdb with one worker per core."""
        self.clear()
        source = [
            str(self.work / photos),
            str(self.out),
            "--list",
            str(self.work / f"{photos}.txt"),
        ]
        return run([*PROGRAM, *source, "--no-shuffle", *flags])

    def bare(self, photos: str, kind: str) -> Run:
        """Decoding, resizing (and encoding) in one thread per core, nothing else."""
        arguments = [str(self.work / photos), str(self.work / f"{photos}.txt"), kind]
        command = [sys.executable, "-c", BARE, *arguments, str(system.num_cores())]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, cpu = map(float, done.stdout.split())
        return Run(seconds, cpu)


def take_turns(rows: dict[str, Any], repeats: int) -> dict[str, list[Run]]:
    """Runs every row in turn, so that a busy moment of the machine meets all of them."""
    results: dict[str, list[Run]] = {name: [] for name in rows}
    for _ in range(repeats):
        for name, call in rows.items():
            results[name].append(call())
    return results


def show(
    title: str, count: int, results: dict[str, list[Run]], compared: tuple[str, ...]
) -> list[dict[str, Any]]:
    """A table of medians with their ratios to two of the rows."""
    print(f"\n{title}")
    header = f"  {'':<28}{'images/s':>10}{'spread':>14}{'CPU ms/image':>14}{'peak MB':>9}"
    print(header + "".join(f"{'x ' + name:>20}" for name in compared if name in results))
    rates = {name: sorted(count / one.seconds for one in runs) for name, runs in results.items()}
    rows = []
    for name, runs in results.items():
        rate = statistics.median(rates[name])
        cpu = 1000 * statistics.median(one.cpu_seconds for one in runs) / count
        peak = max(one.peak_mb for one in runs)
        spread = f"{rates[name][0]:,.0f}-{rates[name][-1]:,.0f}"
        ratios = {
            other: rate / statistics.median(rates[other]) for other in compared if other in rates
        }
        cells = "".join(f"{ratio:>20.2f}" for ratio in ratios.values())
        shown = f"{peak:>9,.0f}" if peak else f"{'':>9}"
        print(f"  {name:<28}{rate:>10,.0f}{spread:>14}{cpu:>14.2f}{shown}{cells}")
        values: dict[str, Any] = {"images_per_s": rate, "cpu_ms_per_image": cpu, "peak_mb": peak}
        rows.append({"what": title, "row": name} | values | ratios)
    return rows


def speed(bench: Bench, count: int, repeats: int) -> list[dict[str, Any]]:
    """Raw and encoded databases of photos."""
    rows = []
    for kind, flags, options in (
        ("raw", SIZE, []),
        ("jpg", [*SIZE, *ENCODED], ["--encoded", "jpg"]),
    ):
        calls = {}
        if bench.tool is not None:
            calls["convert_imageset"] = lambda flags=flags: bench.theirs("photos", flags)
        calls["bare threads"] = lambda kind=kind: bench.bare("photos", kind)
        calls["make-lmdb"] = lambda options=options: bench.ours("photos", options)
        if kind == "jpg":
            exact = [*options, "--mean", "exact"]
            calls["make-lmdb --mean exact"] = lambda exact=exact: bench.ours("photos", exact)
        results = take_turns(calls, repeats)
        title = f"328x328, {kind}: {count:,} images, {repeats} runs each"
        rows += show(title, count, results, ("convert_imageset", "bare threads"))
    return rows


def large(bench: Bench, repeats: int, times: int) -> list[dict[str, Any]]:
    """Originals of 2000x1500 pixels."""
    kilobytes = draw_photos(bench.work / "large", 60, [(2000, 1500), (1500, 2000)], 85)
    count = write_list(bench.work / "large", bench.work / "large.txt", times)
    calls = {}
    if bench.tool is not None:
        calls["convert_imageset"] = lambda: bench.theirs("large", SIZE)
    calls["make-lmdb"] = lambda: bench.ours("large", [])
    calls["make-lmdb --fast-decode"] = lambda: bench.ours("large", ["--fast-decode"])
    results = take_turns(calls, repeats)
    title = f"2000x1500 ({kilobytes:,.0f} kB) to 328x328, raw: {count:,} images"
    return show(title, count, results, ("convert_imageset", "make-lmdb"))


def memory(bench: Bench) -> list[dict[str, Any]]:
    """Peak memory for 2,000 and for 200,000 images."""
    draw_photos(bench.work / "small", 1000, [(64, 48)], 90)
    rows = []
    for times in (2, 200):
        count = write_list(bench.work / "small", bench.work / "small.txt", times)
        results = {"make-lmdb --resize 32": [bench.ours("small", ["--resize", "32"])]}
        rows += show(f"memory, {count:,} images", count, results, ())
    return rows


def main() -> int:
    """Draws, measures, prints, cleans up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000, help="different photos")
    parser.add_argument("--times", type=int, default=6, help="how often each stands in the list")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="for the databases")
    parser.add_argument("--quick", action="store_true", help="only the speed on photos")
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    args = parser.parse_args()
    shared = Path("/dev/shm")  # noqa: S108
    in_memory = shared.is_dir() and shutil.disk_usage(shared).free > 6 << 30
    base = args.folder or (shared if in_memory else None)
    versions = system.versions()
    named = ("python", "numpy", "opencv-python-headless", "lmdb")
    print(f"{processor()}, {system.num_cores()} cores, {platform.platform()}")
    print(", ".join(f"{name} {versions[name]}" for name in named))
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory(dir=base) as out:
        bench = Bench(Path(work), Path(out))
        sizes = [(500, 375), (375, 500), (500, 333), (500, 400)]
        kilobytes = draw_photos(bench.work / "photos", args.images, sizes, 96)
        count = write_list(bench.work / "photos", bench.work / "photos.txt", args.times)
        print(f"{args.images:,} photos of {kilobytes:,.0f} kB; databases in {out}")
        print(f"load of the machine at the start: {os.getloadavg()[0]:.2f}")
        rows = speed(bench, count, args.repeats)
        if not args.quick:
            rows += large(bench, max(1, args.repeats - 2), 30)
            rows += memory(bench)
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def processor() -> str:
    """What the machine calls its processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    sys.exit(main())
