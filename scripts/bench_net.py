"""Speed of the commands about nets, as ratios against the real Caffe doing the same.

Usage: scripts/bench net [PART ...] [--repeats N]

Each part runs whole processes in turn, ours and theirs, and prints the median of each and their
ratio. Parts:

  build     ``irv2caffe build-net`` against the same net emitted by pycaffe's own NetSpec.
  summary   ``irv2caffe summary`` of a foreign prototxt of 14,000 lines, against pycaffe loading the
            same file. Caffe also makes the weights on the way; the net is narrow, so that this is
            little.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
OURS = (sys.executable, "-m", "irv2caffe")


def main() -> int:
    """Runs the parts that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all")
    parser.add_argument("--repeats", type=int, default=7, help="of each process (default: 7)")
    args = parser.parse_args()
    unknown = sorted(set(args.parts) - set(PARTS))
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are: {', '.join(PARTS)}")
    print(machine())
    for name in args.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder), args.repeats)
    return 0


def machine() -> str:
    """What the figures hold for."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
    load = os.getloadavg()[0]
    return (
        f"{cpu}, {os.cpu_count()} cores, load {load:.1f}; Python {platform.python_version()}, "
        f"protobuf {version('protobuf')}, irv2caffe {version('irv2caffe')}"
    )


def seconds(command: Sequence[str], env: Mapping[str, str] | None = None) -> float:
    """Of one whole process, which must succeed."""
    start = time.perf_counter()
    subprocess.run(command, env=env, check=True, capture_output=True)
    return time.perf_counter() - start


def compare(what: str, ours: Callable[[], float], theirs: Callable[[], float], n: int) -> None:
    """Runs both in turn, so that a busy machine slows both, and prints medians and ratio."""
    times = [(ours(), theirs()) for _ in range(n)]
    mine, real = (statistics.median(column) for column in zip(*times, strict=True))
    spread = ", ".join(f"{low:.2f}..{high:.2f}" for low, high in map(_range, zip(*times)))  # noqa: B905
    print(
        f"{what}: {mine:.2f} s, real Caffe {real:.2f} s (medians of {n}; {spread}): "
        f"{real / mine:.1f} times as fast"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def summary(folder: Path, repeats: int) -> None:
    """A residual net of 114 blocks, written as people write them."""
    import foreign_nets

    from irv2caffe.caffe.command import tool_command
    from irv2caffe.caffe.find import find_caffe
    from irv2caffe.errors import CaffeNotFoundError

    text = foreign_nets.resnet((3, 24, 84, 3), widths=(8, 16, 24, 32))
    path = folder / "foreign.prototxt"
    path.write_text(text, encoding="utf-8")
    ours = [*OURS, "summary", str(path)]
    code = "import caffe, sys; caffe.Net(sys.argv[1], caffe.TEST)"
    what = f"summary of {text.count(chr(10)):,} lines, {text.count('layer {'):,} layers"
    try:
        real = tool_command(find_caffe(), "python", ["-c", code, str(path)])
    except CaffeNotFoundError:
        print(f"{what}: {statistics.median(seconds(ours) for _ in range(repeats)):.2f} s; no Caffe")
        return
    env = {**real.env, "GLOG_minloglevel": "2"}
    compare(what, lambda: seconds(ours), lambda: seconds(real.argv, env), repeats)
    drawn = seconds([*ours, "--draw", str(folder / "net.svg")])
    print(f"  the same with --draw net.svg: {drawn:.2f} s (once)")
    print(f"  irv2caffe --version: {seconds([*OURS, '--version']):.2f} s (once)")


def build(folder: Path, repeats: int) -> None:
    """Slim's three prototxts, ours and those of a program with pycaffe's NetSpec."""
    from irv2caffe.caffe.command import tool_command
    from irv2caffe.caffe.find import find_caffe
    from irv2caffe.errors import CaffeNotFoundError

    ours = [*OURS, "build-net", "--out", str(folder / "ours"), "--force"]
    what = "build-net of slim, whole process"
    program = str(ROOT / "scripts" / "bench_pycaffe_netspec.py")
    try:
        real = tool_command(find_caffe(), "python", [program, str(folder / "theirs")])
    except CaffeNotFoundError:
        print(f"{what}: {statistics.median(seconds(ours) for _ in range(repeats)):.2f} s; no Caffe")
        return
    compare(what, lambda: seconds(ours), lambda: seconds(real.argv, real.env), repeats)


PARTS: dict[str, Callable[[Path, int], None]] = {"build": build, "summary": summary}

if __name__ == "__main__":
    sys.exit(main())
