"""Trains nets that differ by one factor each, and says which factors matter.

Usage: python examples/why_it_stalled/run.py CIFAR --data FOLDER --results FILE [options]

CIFAR is cifar-100-python.tar.gz as downloaded, or a folder with train.tar and test.tar, archives of
class folders; it is read only if FOLDER does not have the databases yet. Runs that FILE has are not
done again. report.py makes the table and the figure.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from experiment import results
from experiment.arms import SETS, SIZES
from experiment.databases import make_databases
from experiment.one_run import Run
from experiment.workers import Workers

from irv2caffe.errors import Irv2CaffeError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ENGINES = {"torch": ("torch",), "caffe": ("caffe",), "both": ("caffe", "torch")}


def planned(args: argparse.Namespace) -> list[Run]:
    """The runs, all arms of the first seed first."""
    gpus = {"caffe": None, "torch": None if args.gpus == "none" else int(args.gpus)}
    size, data = SIZES["tiny" if args.tiny else args.set], args.data.resolve()
    return [
        Run(arm, size.for_arm(arm), seed, engine, data, gpus[engine])
        for seed in range(args.first_seed, args.first_seed + args.seeds)
        for arm in SETS[args.set]
        for engine in _ENGINES[args.engine]
        if engine in arm.engines and (not args.arms or arm.name in args.arms)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the arguments and does the runs; the exit code is 1 if any failed."""
    args = _parser().parse_args(argv)
    have = results.read(args.results)
    done = {results.key_of(line) for line in have}
    runs = [run for run in planned(args) if run.key not in done]
    _say(f"{len(runs)} runs to do, {len(done)} done already; {_estimate(runs, have, args.workers)}")
    if args.dry_run:
        for run in runs:
            print(f"seed {run.seed}  {run.engine:5}  {run.arm.name}")
        return 0
    try:
        if runs:
            make_databases(args.cifar, args.data, SIZES["tiny" if args.tiny else args.set])
    except Irv2CaffeError as error:
        _say(f"Error: {error}")
        return error.exit_code
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes end too
    start_s, counts = time.monotonic(), Counter[str]()

    def note(line: dict[str, Any]) -> None:
        results.append(args.results, line)
        counts["error" if "error" in line else "done"] += 1
        counts["iterations"] += line.get("iterations", 0)
        _say(_progress(line, counts, len(runs), time.monotonic() - start_s))

    with Workers(start_s + 60 * args.minutes) as workers:
        if args.trial and runs:
            for count in (1, args.workers):
                _say(_trial(workers, runs[0], count))
        workers.do(args.workers, runs, note)
    _say(f"{counts['done']} done, {counts['error']} failed, {len(runs) - counts['done']} left")
    return 1 if counts["error"] else 0


def _trial(workers: Workers, run: Run, count: int) -> str:
    """What so many processes do side by side."""
    rates: list[float] = []
    runs = [replace(run, is_trial=True)] * count
    workers.do(count, runs, lambda line: rates.append(line.get("rate", 0.0)))
    return f"{count} side by side: {sum(rates):.0f} iterations/s ({run.engine}, {run.arm.name})"


def _progress(line: dict[str, Any], counts: Counter[str], total: int, passed_s: float) -> str:
    name = f"seed {line['seed']} {line['engine']} {line['arm']}"
    if "error" in line:
        return f"{name}: {line['error']}"
    final = line["final"]
    return (
        f"{counts['done']}/{total} {passed_s:.0f} s, {counts['iterations'] / passed_s:.0f} it/s; "
        f"{name}: {line['iterations'] / line['train_s']:.0f} it/s, training loss "
        f"{line['losses'][-1]}, error running {final['running']['error']:.1f} %, "
        f"batch 50 {final['batch 50']['error']:.1f} %, batch 2 {final['batch 2']['error']:.1f} %"
    )


def _estimate(runs: Sequence[Run], have: Sequence[dict[str, Any]], workers: int) -> str:
    """The time that the runs will take, from those of the same engines that were done."""
    times: dict[str, list[float]] = {}
    for line in have:
        if "total_s" in line:
            times.setdefault(line["engine"], []).append(line["total_s"])
    if not runs or any(run.engine not in times for run in runs):
        return "their time is not known before one of each engine was done"
    total_s = sum(median(times[run.engine]) for run in runs)
    return f"about {total_s / workers / 60:.0f} minutes with {workers} workers"


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar", type=Path, help="cifar-100-python.tar.gz, or a folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of the databases")
    parser.add_argument("--results", type=Path, required=True, help="file of results")
    parser.add_argument("--set", choices=SETS, default="reduced", help="which arms and sizes")
    parser.add_argument("--engine", choices=_ENGINES, default="both")
    parser.add_argument("--gpus", default="none", help="number of a GPU, or none")
    parser.add_argument("--arms", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    parser.add_argument("--minutes", type=float, default=90.0, help="then everything is stopped")
    parser.add_argument("--trial", action="store_true", help="first print iterations per second")
    parser.add_argument("--dry-run", action="store_true", help="only list the runs")
    parser.add_argument("--tiny", action="store_true", help="a few iterations, to try it out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
