"""Checks and measures the torch engine on an NVIDIA GPU: parity, speed, training.

Usage: scripts/gpu-check [--only PART,PART] [--out FOLDER] [--data FOLDER] [--batches N,N]

Each part runs as a process of its own with a time limit, so that one that fails leaves the others
whole. Every result is a line of JSON in FOLDER/results.jsonl as soon as it is known; a table of all
of them comes last. Without timm its column is left out. ``--data`` has what the trainings read:
``cifar100`` and ``fashion`` (scripts/gpu_parts/training.py says how they look).
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
        print(f"{line['part']:9} {line['name']:{width}} {value}")


def main() -> None:
    """Reads the arguments and runs the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(LIMITS_S))
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-check")))
    parser.add_argument("--data", type=Path, default=Path("gpu-data"))
    parser.add_argument("--batches", default="128,256", help="batch sizes of the speed part")
    parser.add_argument("--after", type=Path, help="measure compiled steps when this file exists")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--candidate", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.data = args.data.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.part:
        sys.path.insert(0, str(Path(__file__).parent))
        module = importlib.import_module(f"gpu_parts.{args.part}")
        module.run(Report(args.part, args.out), args)
        return
    for part in args.only.split(","):
        run_part(part, args)
    print_table(args.out)


if __name__ == "__main__":
    main()
