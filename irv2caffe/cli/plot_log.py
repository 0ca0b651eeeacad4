"""The command plot-log."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from irv2caffe import ui
from irv2caffe.cli.option_sections import SectionCommand, with_options
from irv2caffe.cli.plot_log_options import PLOT_LOG_OPTIONS
from irv2caffe.errors import InputError, UsageError

if TYPE_CHECKING:
    from irv2caffe.log.reference import Reference
    from irv2caffe.log.summary import Summary
    from irv2caffe.plot.curve import Window
    from irv2caffe.plot.curves import Run
    from irv2caffe.plot.report_section import Section
    from irv2caffe.plot.session import PlotSession

_WATCH_S = 30.0
_SILENCE_S = 600.0  # after which every check says that nothing was logged
_MAX_PLACE = 1e18  # on the axis of epochs or iterations
_FILE = click.Path(path_type=Path)


def _window(text: str | None) -> Window | None:
    """``A:B``, either of which may be missing."""
    if text is None:
        return None
    first, colon, last = text.partition(":")
    try:
        window = (float(first) if first else None, float(last) if last else None)
    except ValueError as error:
        raise UsageError(f"--epochs {text}: give A:B, as in 15:25") from error
    low, high = window
    if not colon or not all(abs(end) <= _MAX_PLACE for end in window if end is not None):
        raise UsageError(f"--epochs {text}: give A:B, as in 15:25")
    if low is not None and high is not None and not low < high:
        raise UsageError(f"--epochs {text}: give A:B with A below B, as in 15:25")
    return window


def _split_references(
    logs: tuple[Path, ...], names: tuple[str, ...]
) -> tuple[list[Path], tuple[Reference, ...]]:
    """Logs and published runs; names after ``--reference NAME`` may follow without it."""
    from irv2caffe.log.reference import NAMES, references

    wanted = [name for text in names for name in text.split(",") if name]
    if wanted:
        following = [log for log in logs if str(log) in {*NAMES, "all"} and not log.exists()]
        wanted += [str(log) for log in following]
        logs = tuple(log for log in logs if log not in following)
    if not logs:
        raise UsageError("no log is given", "plot-log takes logs of Caffe or run folders")
    return list(logs), tuple(references(wanted))


@click.command("plot-log", cls=SectionCommand, short_help="Plot Caffe logs: error, loss, events.")
@click.argument("logs", nargs=-1, required=True, type=_FILE)
@with_options(PLOT_LOG_OPTIONS)
def plot_log_command(
    logs: tuple[Path, ...],
    out: Path | None,
    html_file: Path | None,
    epochs: str | None,
    panels: tuple[str, ...],
    log_axes: tuple[str, ...],
    smooth: int | None,
    references: tuple[str, ...],
    names: tuple[str, ...],
    title: str,
    join: bool,
    num_train_images: int | None,
    images_per_iteration: int | None,
    top1: str | None,
    top5: str | None,
    test_net: int,
    year: int | None,
    csv_file: Path | None,
    jsonl_file: Path | None,
    tensorboard: Path | None,
    unknown: Path | None,
    force: bool,
    watch: bool,
    every: float | None,
    as_json: bool,
) -> None:
    """Plot the validation error and training loss of one or more runs and print a summary.

    LOGS are Caffe logs (.gz, .bz2 or .xz, too), run folders of train, or - for standard input.
    """
    from irv2caffe.log.accuracy import AccuracyNames
    from irv2caffe.plot.session import PlotSession, Request
    from irv2caffe.plot.style import PlotOptions

    paths, published = _split_references(logs, references)
    if watch and unknown is not None:
        raise UsageError("--unknown does not go with --watch")
    request = Request(
        paths=paths,
        join=join,
        names=names,
        num_train_images=num_train_images,
        images_per_iteration=images_per_iteration,
        outputs=AccuracyNames(top1, top5),
        test_net=test_net,
        year=year,
        out=out,
        html=html_file,
        csv=csv_file,
        jsonl=jsonl_file,
        tensorboard=tensorboard,
        unknown=unknown,
        options=PlotOptions(_window(epochs), title, panels, smooth, frozenset(log_axes), published),
        force=force,
        refresh_s=max(1, round(every or _WATCH_S)) if watch else None,
    )
    with PlotSession(request) as session:
        runs = _watch(session, every) if watch else _plot_once(session)
        _show(session, runs, as_json=as_json)


def _plot_once(session: PlotSession) -> list[Run]:
    """Reads the logs and writes everything."""
    session.read()
    runs = session.runs()
    session.check_outputs(runs)
    kinds = {".png": "figure", ".svg": "figure", ".pdf": "figure", ".html": "report"}
    for path in session.write(runs, _sections(session, runs)):
        kind = "events" if ".tfevents." in path.name else kinds.get(path.suffix.lower(), "rows")
        ui.say(f"{kind}: {path}")
    return runs


def _watch(session: PlotSession, every_s: float | None) -> list[Run]:
    """Writes everything again whenever the logs have grown, until the runs have ended.

    Args:
        session: not yet read.
        every_s: seconds between two checks; None waits longer where writing takes more than a
            hundredth of that.
    """
    last = time.monotonic()
    while True:
        started = time.process_time()
        grown = session.poll()
        runs = session.runs()
        if grown:
            _refresh(session, runs)
            last = time.monotonic()
        elif time.monotonic() - last > _SILENCE_S:
            ui.say(f"no new line for {ui.duration(time.monotonic() - last)}")
        if session.ended:
            return runs
        cost_s = time.process_time() - started
        time.sleep(max(_WATCH_S, 100 * cost_s) if every_s is None else every_s)


def _refresh(session: PlotSession, runs: list[Run]) -> None:
    from irv2caffe.log.describe import summary_items
    from irv2caffe.log.summary import summarize

    session.check_outputs(runs)
    try:
        session.write(runs, _sections(session, runs))
    except InputError as error:  # the run has only just started
        ui.say(error.message)
        return
    for run in runs:
        parts = [f"{name} {value}" for name, value in summary_items(summarize(run.table))]
        ui.say(f"{run.name}: {', '.join(parts)}")


def _sections(session: PlotSession, runs: list[Run]) -> list[Section]:
    """The diagnosis of each run, for the report."""
    asked = session.request
    if asked.html is None:
        return []
    from irv2caffe.diagnose.diagnosis import diagnose
    from irv2caffe.diagnose.gather import Request, evidence_of_log
    from irv2caffe.diagnose.report_section import section_of

    sections = []
    for path, run in zip(asked.paths[:1] if asked.join else asked.paths, runs, strict=True):
        assert run.log is not None
        evidence = evidence_of_log(run.log, Request(path, reads_databases=False), run.table)
        sections.append(section_of(diagnose(evidence), run.name))
    return sections


def _show(session: PlotSession, runs: list[Run], *, as_json: bool) -> None:
    """Prints the summary and findings of each run, and where epochs are from."""
    from irv2caffe.log.describe import finding_lines
    from irv2caffe.log.summary import summarize

    for name, images in session.train_images():
        if images.number is None:
            ui.say(f"{name}: {images.source}; --num-train-images N turns iterations into epochs")
        elif images.source != "as given":
            ui.say(f"{name}: an epoch is {images.number:,} images: {images.source}")
    if as_json:
        ui.show_json(session.report(runs))
        return
    for run in runs:
        summary = summarize(run.table)
        ui.show(run.name)
        for line in summary_lines(summary):
            ui.show(f"  {line}")
        for kind, text in finding_lines(summary, run.log):
            ui.show(f"  {kind:<21} {text}")


def summary_lines(summary: Summary) -> list[str]:
    """A run's figures for a person, one line each."""
    from irv2caffe.log.describe import summary_items

    return [f"{name:<21} {value}" for name, value in summary_items(summary)]
