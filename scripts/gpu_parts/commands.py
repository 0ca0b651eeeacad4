"""Commands that the parts run, and what their logs say."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
_TEST = re.compile(r"Test net output #\d+: (\S+) = (\S+)")
_LOSS = re.compile(r"Iteration (\d+)(?: \(.*\))?, loss = (\S+)")


def irv2caffe(*words: object, cwd: Path) -> None:
    """Runs a command of ours; stops the part if it fails."""
    command = [sys.executable, "-m", "irv2caffe", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[3:])}: {done.stdout[-1500:]}{done.stderr[-1500:]}")


def engine(*words: object, cwd: Path, log: Path) -> float:
    """Trains with the engine's own command line; the seconds it took."""
    command = [sys.executable, "-m", "irv2caffe.engine", "train", *map(str, words)]
    start = time.monotonic()
    with log.open("w") as file:
        code = subprocess.run(command, cwd=cwd, stderr=file, check=False).returncode
    if code:
        raise SystemExit(f"exit code {code}: {log.read_text()[-3000:]}")
    return time.monotonic() - start


def tests(log: Path) -> dict[str, list[float]]:
    """The values of each test output, in the order of the tests."""
    found: dict[str, list[float]] = {}
    for name, value in _TEST.findall(log.read_text()):
        found.setdefault(name, []).append(float(value))
    return found


def losses(log: Path) -> dict[int, float]:
    """The displayed losses by iteration."""
    return {int(number): float(loss) for number, loss in _LOSS.findall(log.read_text())}
