"""Gives readers of files damaged inputs, each in a process of its own that is watched.

A reader reads an input or refuses it with an error of the program's own. A traceback, a crash, more
than 20 s of CPU time or 2 GB of memory is a failure; its input is kept, to be read again with

    scripts/fuzz READER FILE
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from helpers.fuzz_pool import Tally, fuzz, try_one
from helpers.fuzz_readers import READERS

_HEADINGS = ("reader", "inputs", "refused", "failures", "slowest", "peak memory")
_SHOWN_LINES, _SHOWN_CHARACTERS = 5, 200
_ROW = "{:<16}{:>10}{:>10}{:>10}{:>10}{:>13}"


def main() -> int:
    """Runs the readers that are named; 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        "scripts/fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("readers", nargs="+", metavar="READER", help=f"all, {', '.join(READERS)}")
    parser.add_argument("--minutes", type=float, default=1.0, help="in all  [1]")
    parser.add_argument("--seed", type=int, default=0, help="other inputs  [0]")
    parser.add_argument("--jobs", type=int, default=1, help="readers at a time  [1]")
    parser.add_argument("--keep", type=Path, help="where failing inputs go  [a temporary folder]")
    told = parser.parse_args()
    if len(told.readers) == 2 and told.readers[0] in READERS and Path(told.readers[1]).exists():
        return _again(told.readers[0], Path(told.readers[1]))
    names = list(READERS) if told.readers == ["all"] else told.readers
    for name in names:
        if name not in READERS:
            parser.error(f"no reader {name}; one of: all, {', '.join(READERS)}")
    keep = told.keep or Path(tempfile.mkdtemp(prefix="fuzz-kept-"))
    keep.mkdir(parents=True, exist_ok=True)
    seconds = 60 * told.minutes * told.jobs / len(names)
    print(_ROW.format(*_HEADINGS), flush=True)
    tallies = []
    with ThreadPoolExecutor(told.jobs) as pool:
        for tally in pool.map(
            lambda name: fuzz(name, seed=told.seed, seconds=seconds, keep=keep), names
        ):
            tallies.append(tally)
            print(_row(tally), flush=True)
    return _show_failures(tallies, keep)


def _row(tally: Tally) -> str:
    return _ROW.format(
        tally.reader,
        f"{tally.inputs:,}",
        f"{tally.refused:,}",
        f"{sum(tally.failures.values()):,}",
        f"{tally.slowest_s:.2f} s",
        f"{tally.peak_bytes / 1e6:,.0f} MB",
    )


def _show_failures(tallies: list[Tally], keep: Path) -> int:
    """Each kind of failure once; 1 if there are any."""
    for tally in tallies:
        for signature, count in tally.failures.items():
            print(f"\n{tally.reader}: {signature} ({count:,} inputs)")
            for line in tally.words[signature].rstrip().splitlines()[-_SHOWN_LINES:]:
                print(line[:_SHOWN_CHARACTERS])
    if any(tally.failures for tally in tallies):
        print(f"\nkept in {keep}; again: scripts/fuzz READER FILE")
        return 1
    if not any(keep.iterdir()):
        keep.rmdir()
    return 0


def _again(name: str, path: Path) -> int:
    """Reads one input and shows what comes of it."""
    ending = try_one(name, path)
    print(
        f"{ending.how} in {ending.cpu_s:.2f} s, {ending.peak_bytes / 1e6:,.0f} MB\n{ending.words}"
    )
    return int(ending.is_failure)


if __name__ == "__main__":
    sys.exit(main())
