"""The torch engine's data layer against the one of the real Caffe: images per second.

Usage: scripts/bench feed [--images N] [--batches N] [--repeats R] [--threads T] [--all]
                          [--device cuda]

Makes databases of photo-like images of 328x328, raw and JPEG, and reads batches of 32 from them
with random crops of 299, mirror images and means, from a net that has nothing but its Data layer.
Each run is a process of its own; the two programs take turns, and the table shows medians. Time
counts from a batch after the ones that were read ahead; processor time counts all threads.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_data import draw_photo, processor

from irv2caffe import system
from irv2caffe.caffe.command import Command, tool_command
from irv2caffe.caffe.find import find_caffe
from irv2caffe.data.lmdb_store import DatabaseWriter
from irv2caffe.data.records.datum import encoded_head, encoded_tail, raw_head, raw_tail, record_key
from irv2caffe.data.records.image import encode_image
from irv2caffe.errors import CaffeNotFoundError

SIDE, CROP, BATCH, WARM_UP = 328, 299, 32, 10
MEANS = "mean_value: 104 mean_value: 117 mean_value: 123"
NET = """layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
transform_param {{ crop_size: {crop} mirror: true {means} }}
data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }} }}
"""
CAFFE = """
import json, sys, time
import caffe
net = caffe.Net(sys.argv[1], caffe.TRAIN)
count, warm_up = int(sys.argv[2]), int(sys.argv[3])
for _ in range(warm_up):
    net._forward(0, 0)
start, cpu = time.perf_counter(), time.process_time()
for _ in range(count):
    net._forward(0, 0)
print(json.dumps([time.perf_counter() - start, time.process_time() - cpu]))
"""


def make_databases(folder: Path, count: int) -> dict[str, float]:
    """Databases ``raw`` and ``jpg``; the mean size of their records in kB."""
    rng = np.random.default_rng(0)
    photos = [draw_photo(rng, SIDE, SIDE) for _ in range(min(count, 200))]
    sizes = {}
    for kind in ("raw", "jpg"):
        (folder / kind).mkdir()
        total = 0
        with DatabaseWriter(folder / kind) as writer:
            for index in range(count):
                record = make_record(photos[index % len(photos)], kind, index % 10)
                writer.put(record_key(index, f"{index}.jpg"), record)
                total += len(record)
        sizes[kind] = total / count / 1000
    return sizes


def make_record(photo: np.ndarray, kind: str, label: int) -> bytes:
    """A record as convert_imageset writes it."""
    if kind == "raw":
        planes = photo.transpose(2, 0, 1)
        return raw_head(planes.shape) + planes.tobytes() + raw_tail(label)
    data = encode_image(photo, "jpg").tobytes()
    return encoded_head(len(data)) + data + encoded_tail(label)


def read_batches(net: Path, count: int, told: dict[str, Any], device_name: str) -> list[float]:
    """Reads batches with the engine: seconds, and processor seconds."""
    import torch

    from irv2caffe.engine.data.feed import open_feed
    from irv2caffe.engine.options import EngineOptions
    from irv2caffe.proto import messages
    from irv2caffe.proto.text import parse_prototxt

    device = torch.device(device_name)
    proto = parse_prototxt(net.read_text(), messages.NetParameter)
    with open_feed(proto, "TRAIN", EngineOptions(**told), device=device, seed=1) as feed:
        for _ in range(WARM_UP):
            feed.next()
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            feed.next()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return [time.perf_counter() - start, time.process_time() - cpu]


def run(command: Command | list[str]) -> list[float]:
    """The numbers that a program prints."""
    argv = command if isinstance(command, list) else command.argv
    env = dict(os.environ) if isinstance(command, list) else dict(command.env)
    env |= {"GLOG_minloglevel": "2"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    numbers: list[float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def programs(net: Path, args: argparse.Namespace) -> dict[str, Command | list[str]]:
    """What takes turns, by name."""
    calls: dict[str, Command | list[str]] = {}
    try:
        code = ["-c", CAFFE, str(net), str(args.batches), str(WARM_UP)]
        calls["Caffe"] = tool_command(find_caffe(), "python", code)
    except CaffeNotFoundError:
        print("no Caffe here", file=sys.stderr)
    told: dict[str, dict[str, Any]] = {"engine": {}, "engine, 1 thread": {"data_threads": 1}}
    if args.all:
        told["engine --shuffle"] = {"shuffle": True}
        told["engine --augment inception"] = {"augment": "inception"}
    for name, options in told.items():
        if args.threads and "data_threads" not in options:
            options["data_threads"] = args.threads
        child = [sys.executable, __file__, "--child", str(net), json.dumps(options)]
        calls[name] = [*child, "--batches", str(args.batches), "--device", args.device]
    return calls


def measure(calls: dict[str, Command | list[str]], args: argparse.Namespace) -> None:
    """Runs the programs in turns and prints a table."""
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(args.repeats):
        for name, command in calls.items():
            seconds, cpu = run(command)
            images = args.batches * BATCH
            results[name].append((images / seconds, images / cpu))
    base = statistics.median(rate for rate, _ in results.get("Caffe", [(float("nan"), 0)]))
    print(f"{'':32}{'images/s':>10}{'lowest':>10}{'highest':>10}{'per core':>10}{'ratio':>8}")
    for name, rows in results.items():
        rates = [rate for rate, _ in rows]
        middle, core = statistics.median(rates), statistics.median(core for _, core in rows)
        numbers = f"{middle:10,.0f}{min(rates):10,.0f}{max(rates):10,.0f}{core:10,.0f}"
        print(f"{name:32}{numbers}{middle / base:8.2f}")


def main() -> int:
    """Makes the databases, measures, prints, cleans up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000, help="records of each database")
    parser.add_argument("--batches", type=int, default=100, help="batches of each run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the engine; as in training by default")
    parser.add_argument("--all", action="store_true", help="measure the engine's options too")
    parser.add_argument("--device", default="cpu", help="where the engine puts the batches")
    parser.add_argument("--folder", type=Path, help="for the databases")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        net, told = Path(args.child[0]), json.loads(args.child[1])
        print(json.dumps(read_batches(net, args.batches, told, args.device)))
        return 0
    versions = system.versions()
    named = ("python", "numpy", "opencv-python-headless", "lmdb", "torch")
    print(f"{processor()}, {system.num_cores()} cores, {platform.platform()}")
    print(", ".join(f"{name} {versions.get(name)}" for name in named))
    with tempfile.TemporaryDirectory(dir=args.folder) as work:
        for kind, kilobytes in make_databases(Path(work), args.images).items():
            net = Path(work) / f"{kind}.prototxt"
            source = str(Path(work) / kind)
            net.write_text(NET.format(source=source, crop=CROP, means=MEANS, batch=BATCH))
            print(f"\n{kind}: records of {kilobytes:,.0f} kB, load {os.getloadavg()[0]:.1f}")
            measure(programs(net, args), args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
