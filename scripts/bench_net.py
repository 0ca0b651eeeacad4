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
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
OURS = (sys.executable, "-m", "irv2caffe")
Run = Callable[[], tuple[float, float]]


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
    return (
        f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"Python {platform.python_version()}, protobuf {version('protobuf')}, "
        f"irv2caffe {version('irv2caffe')}"
    )


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[float, float]:
    """Seconds of one whole process, which must succeed: by the clock, and of the processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, env=env, check=True, capture_output=True)
    elapsed = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(what: str, ours: Run, theirs: Run | None, repeats: int) -> None:
    """Runs both in turn, so that a busy machine slows both; prints medians and their ratio."""
    times = [(ours(), theirs() if theirs else (0.0, 0.0)) for _ in range(repeats)]
    (our_clock, our_cpu), (their_clock, their_cpu) = (
        [statistics.median(pair[which][kind] for pair in times) for kind in (0, 1)]
        for which in (0, 1)
    )
    clocks = sorted(pair[0][0] for pair in times)
    spread = f"{clocks[0]:.2f} to {clocks[-1]:.2f}"
    print(f"{what}: medians of {repeats}")
    print(f"  ours        {our_clock:.2f} s ({spread}), {our_cpu:.2f} s of CPU")
    if theirs is None:
        print("  no Caffe here to compare with")
        return
    print(f"  real Caffe  {their_clock:.2f} s, {their_cpu:.2f} s of CPU")
    print(f"  ratio       {their_clock / our_clock:.1f}, {their_cpu / our_cpu:.1f} of CPU")


def summary(folder: Path, repeats: int) -> None:
    """A residual net of 114 blocks, written as people write them."""
    from helpers import foreign_nets

    from irv2caffe.caffe.command import tool_command
    from irv2caffe.caffe.find import find_caffe
    from irv2caffe.errors import CaffeNotFoundError

    text = foreign_nets.resnet((3, 24, 84, 3), widths=(8, 16, 24, 32))
    path = folder / "foreign.prototxt"
    path.write_text(text, encoding="utf-8")
    ours = [*OURS, "summary", str(path)]
    code = "import caffe, sys; caffe.Net(sys.argv[1], caffe.TEST)"
    theirs = None
    with suppress(CaffeNotFoundError):
        real = tool_command(find_caffe(), "python", ["-c", code, str(path)])
        env = {**real.env, "GLOG_minloglevel": "2"}

        def theirs() -> tuple[float, float]:
            return run(real.argv, env)

    lines, layers = text.count("\n"), text.count("layer {")
    compare(f"summary of {lines:,} lines, {layers:,} layers", lambda: run(ours), theirs, repeats)
    _, drawing = run([*ours, "--draw", str(folder / "net.svg")])
    print(f"  with --draw net.svg: {drawing:.2f} s of CPU, once")


def build(folder: Path, repeats: int) -> None:
    """Slim's three prototxts, ours and those of a program with pycaffe's NetSpec."""
    from irv2caffe.caffe.command import tool_command
    from irv2caffe.caffe.find import find_caffe
    from irv2caffe.errors import CaffeNotFoundError

    ours = [*OURS, "build-net", "--out", str(folder / "ours"), "--force"]
    program = str(ROOT / "scripts" / "bench_pycaffe_netspec.py")
    theirs = None
    with suppress(CaffeNotFoundError):
        real = tool_command(find_caffe(), "python", [program, str(folder / "theirs")])

        def theirs() -> tuple[float, float]:
            return run(real.argv, real.env)

    compare("build-net of slim", lambda: run(ours), theirs, repeats)


PARTS: dict[str, Callable[[Path, int], None]] = {"build": build, "summary": summary}

if __name__ == "__main__":
    sys.exit(main())
