"""Prints the tables of the experiment in Markdown, and draws its figure.

Usage: python examples/why_it_stalled/report.py RESULTS... [--figure FILE] [--engine torch]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from experiment import results
from experiment.summary import first_epoch_table, table

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the arguments, prints and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+", help="files of run.py, of one set")
    parser.add_argument("--figure", type=Path, help=".svg, .png or .pdf")
    parser.add_argument(
        "--engine", choices=("torch", "caffe"), default="torch", help="of the figure"
    )
    args = parser.parse_args(argv)
    lines = [line for path in args.results for line in results.read(path)]
    if not lines:
        print("no results in these files", file=sys.stderr)
        return 1
    if len({line["epochs"] for line in lines}) > 1:
        print("these are results of several sets: give one set at a time", file=sys.stderr)
        return 1
    print(table(lines))
    print("Losses at the end of the first epoch:\n")
    print(first_epoch_table(lines))
    if args.figure is not None:
        from experiment.figure import draw

        draw(lines, args.engine, args.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
