"""The command runs."""

from __future__ import annotations

from pathlib import Path
from textwrap import TextWrapper
from typing import TYPE_CHECKING

import click

from irv2caffe import ui
from irv2caffe.cli.option_sections import SectionCommand, section
from irv2caffe.errors import first_of

if TYPE_CHECKING:
    from irv2caffe.train.run_dir.listing import ListedRun
    from irv2caffe.train.run_dir.settings import Differences

_other = section("Other")
_SORTS = {
    "started": lambda run: run.started or "",
    "best": lambda run: -_or_infinite(run.best_top1_error),
    "last": lambda run: -_or_infinite(run.last_top1_error),
}
_MINUTES = 16  # characters of a date and a time to the minute
_HEADINGS = ("run", "state", "error", "best", "iterations", "started", "updated")
_RIGHT = {"iterations", "error", "best"}
_LEAST_COLUMNS, _LEAST_WIDTH, _NO_LIMIT = 4, 20, 1_000_000
_MOST_NAMES = 5
_GAP, _INDENT = "  ", "    "


@click.command("runs", cls=SectionCommand, short_help="List the runs of a folder.")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@_other(
    "--sort",
    type=click.Choice(list(_SORTS)),
    default="started",
    show_default=True,
    help="Order: by the start, the oldest first, or by the best or last validation error, the "
    "smallest at the end.",
)
@_other("--json", "as_json", is_flag=True, help="Print all runs and all their settings as JSON.")
def runs_command(folder: Path | None, sort: str, as_json: bool) -> None:
    """List the runs of a folder: states, validation errors, and settings in which they differ.

    FOLDER holds run folders of irv2caffe train; without it, it is runs. Errors are top-1 errors in
    percent. A setting that most runs have in common is not repeated at each. Other folders in it
    are listed with the reason why they are no runs.
    """
    from irv2caffe.train.run_dir.listing import list_runs
    from irv2caffe.train.run_dir.settings import differences

    listing = list_runs(folder)
    runs = sorted(listing.runs, key=_SORTS[sort])
    found = differences([run.settings for run in runs])
    if as_json:
        ui.show_json(
            {
                "folder": str(listing.folder),
                "runs": [
                    {**run.as_dict(), "differs": own}
                    for run, own in zip(runs, found.of_runs, strict=True)
                ],
                "usual": found.usual,
                "others": [{"name": each.name, "reason": each.reason} for each in listing.others],
            }
        )
        return
    if runs:
        _show(runs, found)
    for reason in dict.fromkeys(each.reason for each in listing.others):
        names = [ui.printable(each.name) for each in listing.others if each.reason == reason]
        ui.show(f"no run: {first_of(names, _MOST_NAMES)}: {reason}")
    if not runs and not listing.others:
        ui.show(f"{listing.folder} holds no runs")


def _show(runs: list[ListedRun], found: Differences) -> None:
    """Prints a table, and below each run what is particular about it."""
    from irv2caffe.train.run_dir.settings import shown

    rows = [_HEADINGS, *map(_cells, runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = ui.columns_of_stdout() or _NO_LIMIT
    while sum(widths) + len(_GAP) * (len(widths) - 1) > room and len(widths) > _LEAST_COLUMNS:
        widths.pop()
    wrap = TextWrapper(
        max(_LEAST_WIDTH, room), _INDENT, _INDENT, break_long_words=False, break_on_hyphens=False
    )
    for row, own in zip(rows, [{}, *found.of_runs], strict=True):
        cells = (
            cell.rjust(width) if heading in _RIGHT else cell.ljust(width)
            for heading, cell, width in zip(_HEADINGS, row, widths, strict=False)
        )
        ui.show(_GAP.join(cells).rstrip())
        if own:
            ui.show(wrap.fill(shown(own)))
    if found.usual:
        ui.show(f"in most runs:\n{wrap.fill(shown(found.usual))}")


def _cells(run: ListedRun) -> tuple[str, ...]:
    """A row of the table; the columns at its end are left out on a narrow terminal."""
    left_s = run.seconds_left
    return (
        ui.printable(f"{run.name}{' (latest)' if run.is_latest else ''}"),
        ui.printable(run.state) + ("" if left_s is None else f", {ui.duration(left_s)} left"),
        _percent(run.last_top1_error),
        _percent(run.best_top1_error),
        _iterations(run),
        _date(run.started),
        _date(run.updated),
    )


def _iterations(run: ListedRun) -> str:
    if run.iteration is None:
        return ""
    return f"{run.iteration:,}" + (f" of {run.max_iter:,}" if run.max_iter else "")


def _percent(error: float | None) -> str:
    return "" if error is None else f"{error:.2f} %"


def _date(text: str | None) -> str:
    return (text or "")[:_MINUTES].replace("T", " ")


def _or_infinite(error: float | None) -> float:
    return float("inf") if error is None else error
