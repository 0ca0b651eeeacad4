"""Checks and measures the torch engine and real Caffe on an NVIDIA GPU: parity, speed, training.

Usage: scripts/gpu-check [--only PART,PART] [--out FOLDER] [--data FOLDER] [--batches N,N]
                         [--caffe FOLDER | --caffe-bundle FILE] [--caffe-batches N,N]
       scripts/gpu-check --make-bundle FILE [--cuda 13] [--arch 9.0] [--cudnn] [--build-dir FOLDER]

Each part runs as a process of its own with a time limit, so that one that fails leaves the others
whole. Every result is a line of JSON in FOLDER/results.jsonl as soon as it is known; a table of all
of them comes last. Without timm its column is left out. ``--data`` has what the trainings read:
``cifar100`` and ``fashion`` (gpu_parts/cifar.py and fashion.py say how they look).

``--only caffe`` runs all parts of Caffe: with the one that ``install-caffe --cuda`` installed, with
that in a folder, or, on a machine without network, with a file of ``--make-bundle``, which is made
elsewhere and takes CUDA's libraries from PyTorch's packages.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Seconds that each part may take.
LIMITS_S = {
    "facts": 40,
    "speed": 200,
    "kernels": 45,
    "parity": 70,
    "pipeline": 60,
    "train": 120,
    "cifar": 120,
    "group": 60,
    "caffe": 200,
    "caffe_speed": 240,
    "caffe_demo": 120,
    "caffe_gpus": 60,
}


class Report:
    """Writes results as lines of JSON."""

    def __init__(self, part: str, out: Path) -> None:
        self.part = part
        self.out = out
        self._start = time.monotonic()
        self._folder = tempfile.TemporaryDirectory(prefix="gpu-check-")

    def folder(self) -> Path:
        """An empty folder that lasts as long as this process."""
        return Path(self._folder.name)

    def add(self, name: str, value: Any, unit: str = "", **more: Any) -> None:
        """A result; ``value`` may be a number, a text or a list."""
        at_s = round(time.monotonic() - self._start, 1)
        line = {"part": self.part, "name": name, "value": value, "unit": unit, "at_s": at_s, **more}
        with (self.out / "results.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"[{self.part} {at_s:6.1f} s] {name}: {_text(value)} {unit}", flush=True)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return str(value)


def run_part(part: str, args: argparse.Namespace) -> None:
    """Runs a part in a process of its own."""
    command = [sys.executable, __file__, "--part", part, "--out", str(args.out)]
    command += ["--data", str(args.data), "--batches", args.batches]
    command += ["--after", str(args.after)] if args.after else []
    command += ["--caffe", str(args.caffe)] if args.caffe else []
    command += ["--caffe-batches", args.caffe_batches, *(["--cpu"] if args.cpu else [])]
    start = time.monotonic()
    try:
        code: int | str = subprocess.run(command, timeout=LIMITS_S[part], check=False).returncode
    except subprocess.TimeoutExpired:
        code = "over its time"
    took_s = time.monotonic() - start
    Report(part, args.out).add("ended", code, seconds=round(took_s, 1))


def print_table(out: Path) -> None:
    """All results, one line each."""
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    width = max(len(line["name"]) for line in lines)
    for line in lines:
        value = f"{_text(line['value'])} {line['unit']}"
        print(f"{line['part']:11} {line['name']:{width}} {value}")


def parts_of(only: str) -> list[str]:
    """The parts of ``--only``; ``caffe`` is all of those of Caffe."""
    found = []
    for word in only.split(","):
        all_of_it = [part for part in LIMITS_S if word == "caffe" and part.startswith("caffe")]
        found += all_of_it or [word]
        if word not in LIMITS_S:
            raise SystemExit(f"--only {word}: known are {', '.join(LIMITS_S)}")
    return list(dict.fromkeys(found))


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=argparse.SUPPRESS,
    )
    folder: dict[str, Any] = {"type": Path, "metavar": "FOLDER"}
    parser.add_argument("--only", default=",".join(LIMITS_S), metavar="PART,PART")
    parser.add_argument("--out", default=Path(os.environ.get("OUT", "gpu-check")), **folder)
    parser.add_argument("--data", default=Path("gpu-data"), **folder)
    parser.add_argument("--batches", default="128,256", help="batch sizes of the speed part")
    parser.add_argument("--after", type=Path, help="measure compiled steps when this file exists")
    parser.add_argument("--caffe", help="folder of a Caffe for GPUs", **folder)
    parser.add_argument("--caffe-bundle", type=Path, metavar="FILE", help="from --make-bundle")
    parser.add_argument("--caffe-batches", default="16,32", help="batch sizes of caffe_speed")
    parser.add_argument("--cpu", action="store_true", help="try the parts of Caffe without a GPU")
    parser.add_argument("--make-bundle", type=Path, metavar="FILE", help="write it, and exit")
    parser.add_argument("--cuda", type=int, choices=(12, 13), default=13, help="for --make-bundle")
    parser.add_argument("--arch", default="9.0", help="for --make-bundle")
    parser.add_argument("--cudnn", action="store_true", help="for --make-bundle")
    parser.add_argument("--build-dir", default=Path("gpu-build"), **folder)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--candidate", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in ("out", "data", "caffe", "caffe_bundle", "make_bundle"):
        path = getattr(args, name)
        setattr(args, name, path.resolve() if path else None)
    return args


def main() -> None:
    """Makes a bundle, or runs the parts."""
    args = arguments()
    sys.path.insert(0, str(Path(__file__).parent))
    if args.make_bundle:
        importlib.import_module("gpu_parts.bundle").make(args)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    if args.part:
        module = importlib.import_module(f"gpu_parts.{args.part}")
        module.run(Report(args.part, args.out), args)
        return
    parts = parts_of(args.only)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        if args.caffe_bundle:
            unpack = importlib.import_module("gpu_parts.caffe_programs").unpack
            args.caffe = unpack(args.caffe_bundle, Path(folder))
        for part in parts:
            run_part(part, args)
    print_table(args.out)


if __name__ == "__main__":
    main()
