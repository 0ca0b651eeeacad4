"""PlotSession: reads logs, once or while they grow, and writes the files of plot-log."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Self

from irv2caffe.atomic import atomic_file
from irv2caffe.errors import UsageError
from irv2caffe.log.accuracy import AccuracyNames
from irv2caffe.log.dataset import TrainImages, find_train_images
from irv2caffe.log.export import write_csv, write_jsonl
from irv2caffe.log.read.files import STDIN
from irv2caffe.log.read.follow import Follower
from irv2caffe.log.read.reader import Reader, require_caffe_log
from irv2caffe.log.summary import summarize
from irv2caffe.log.table import make_table
from irv2caffe.log.tensorboard import require_tensorboard, write_events
from irv2caffe.own_files import refuse_foreign
from irv2caffe.plot.curves import Run
from irv2caffe.plot.style import PlotOptions, check_suffix, without_controls

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from irv2caffe.plot.report_section import Section


@dataclass(frozen=True)
class Request:
    """Logs to read and files to write; files that are None are not written.

    Attributes:
        paths: logs, run folders, or ``-`` for standard input.
        join: the paths are parts of one run, in order.
        names: of the runs, in order; other runs are wanted after their files.
        num_train_images: overrides the detected number.
        images_per_iteration: overrides the number in the log.
        outputs: the outputs that are accuracies.
        test_net: the test net whose errors are drawn.
        year: of the first line.
        out: a figure.
        html: a report.
        csv: rows of one run.
        jsonl: rows of all runs.
        tensorboard: a folder of event files.
        unknown: the lines that are not from Caffe.
        options: of the figure and the report.
        refresh_s: seconds after which the report reloads itself.
        force: replace files that this program did not write.
    """

    paths: list[Path]
    join: bool = False
    names: tuple[str, ...] = ()
    num_train_images: int | None = None
    images_per_iteration: int | None = None
    outputs: AccuracyNames = field(default_factory=AccuracyNames)
    test_net: int = 0
    year: int | None = None
    out: Path | None = None
    html: Path | None = None
    csv: Path | None = None
    jsonl: Path | None = None
    tensorboard: Path | None = None
    unknown: Path | None = None
    options: PlotOptions = field(default_factory=PlotOptions)
    refresh_s: int | None = None
    force: bool = False


@dataclass
class _Source:
    """A run, its log files and their reader."""

    name: str
    paths: list[Path]
    reader: Reader
    followers: list[Follower] = field(default_factory=list)
    images: TrainImages = field(default_factory=lambda: TrainImages(None, ""))


class PlotSession:
    """Reads the logs of a request; a context manager that closes its files.

    Attributes:
        request: what to read and to write.
    """

    def __init__(self, request: Request) -> None:
        """Checks the request; reads nothing yet.

        Raises:
            UsageError: options that exclude each other.
            OutputExistsError: an output exists, and this program did not write it.
            MissingExtraError: ``tensorboard`` is asked for and not installed.
        """
        groups = [request.paths] if request.join else [[path] for path in request.paths]
        if len(request.names) > len(groups):
            raise UsageError(f"--name is given {len(request.names)} times for {len(groups)} runs")
        if request.csv is not None and len(groups) > 1:
            raise UsageError("--csv takes one log at a time", "--jsonl takes several")
        if request.out is not None:
            check_suffix(request.out)
        if request.tensorboard is not None:
            require_tensorboard()
        _check_files(request)
        self.request = request
        self._stack = ExitStack()
        self._unknown: IO[str] | None = None
        self._sources: list[_Source] = []
        for place, paths in enumerate(groups):
            wanted = request.names[place] if place < len(request.names) else _name(paths[0])
            wanted = without_controls(wanted)
            taken = {source.name for source in self._sources}
            name = wanted if wanted not in taken else without_controls(str(paths[0]))
            name = name if name not in taken else f"{name} ({place + 1})"
            reader = Reader(year=request.year, on_unknown=self._write_unknown)
            self._sources.append(_Source(name, paths, reader))

    def __enter__(self) -> Self:
        if self.request.unknown is not None:
            temporary = self._stack.enter_context(atomic_file(self.request.unknown))
            self._unknown = self._stack.enter_context(temporary.open("w", encoding="utf-8"))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def _write_unknown(self, line: str) -> None:
        if self._unknown is not None:
            self._unknown.write(f"{line}\n")

    def read(self) -> None:
        """Reads the logs to their ends.

        Raises:
            MissingInputError: there is no such log.
            FormatError: it has no line of a Caffe training.
            InputError: it cannot be read.
        """
        for source in self._sources:
            for path in source.paths:
                source.reader.read_file(path)
            require_caffe_log(source.reader.log, source.paths[0])

    def check_outputs(self, runs: list[Run]) -> None:
        """Checks that a run has the test net and the accuracies of the request.

        Raises:
            UsageError: there are tests, and none of them has these.
        """
        request = self.request
        tests = [test for run in runs for test in (*run.table.test, *run.table.other_tests)]
        nets = sorted({test.net for test in tests})
        if nets and request.test_net not in nets:
            known = ", ".join(map(str, nets))
            raise UsageError(f"--test-net {request.test_net}: no such test net", f"one of: {known}")
        names = dict.fromkeys(name for test in tests for name in test.outputs)
        for option, name in zip(("--top1", "--top5"), request.outputs, strict=True):
            if names and name is not None and name not in names:
                known = ", ".join(without_controls(name) for name in names)
                raise UsageError(f"{option} {name}: no such output of a test", f"one of: {known}")

    def poll(self) -> bool:
        """Reads what was appended to the logs; returns whether there was anything."""
        grown = False
        for source in self._sources:
            if not source.followers:
                for path in source.paths:
                    follower = Follower(source.reader, path)
                    self._stack.callback(follower.close)
                    source.followers.append(follower)
                for follower in source.followers[:-1]:  # only the last part of a run grows
                    follower.poll()
                    source.reader.finish()
            grown |= source.followers[-1].poll()
        return grown

    @property
    def ended(self) -> bool:
        """Whether every run has finished or its log cannot grow."""
        return all(
            (source.reader.log.finished and not source.reader.log.fatal)
            or (bool(source.followers) and source.followers[-1].ended)
            for source in self._sources
        )

    def runs(self) -> list[Run]:
        """The runs as read so far."""
        request, runs = self.request, []
        for source in self._sources:
            log = source.reader.log
            source.images = self._train_images(source)
            table = make_table(
                log,
                num_train_images=source.images.number,
                images_per_iteration=request.images_per_iteration,
                names=request.outputs,
                test_net=request.test_net,
            )
            runs.append(Run(source.name, table, log))
        return runs

    def _train_images(self, source: _Source) -> TrainImages:
        if self.request.num_train_images is not None:
            return TrainImages(self.request.num_train_images, "as given")
        path = source.paths[-1]
        folder = None if str(path) == STDIN else path if path.is_dir() else path.parent
        return find_train_images(source.reader.log, folder)

    def train_images(self) -> list[tuple[str, TrainImages]]:
        """Name and number of training images of each run."""
        return [(source.name, source.images) for source in self._sources]

    def write(self, runs: list[Run], sections: Sequence[Section] = ()) -> list[Path]:
        """Writes the files of the request; returns their paths.

        Args:
            runs: from :meth:`runs`.
            sections: further ones of the report.

        Raises:
            InputError: there is nothing to draw.
            OutputError: a file cannot be written.
        """
        request, written = self.request, []
        if request.out is not None:
            from irv2caffe.plot.figure import draw

            draw(runs, request.out, request.options)
            written.append(request.out)
        if request.html is not None:
            from irv2caffe.plot.report import write_report

            refresh_s = None if self.ended else request.refresh_s
            write_report(
                runs, request.html, request.options, refresh_s=refresh_s, sections=sections
            )
            written.append(request.html)
        if request.csv is not None:
            write_csv(request.csv, runs[0].table)
            written.append(request.csv)
        if request.jsonl is not None:
            write_jsonl(request.jsonl, {run.name: run.table for run in runs})
            written.append(request.jsonl)
        if request.tensorboard is not None:
            written += write_events(request.tensorboard, {run.name: run.table for run in runs})
        return written

    def report(self, runs: list[Run]) -> dict[str, Any]:
        """The summary and line counts of each run by name, for JSON."""
        report = {}
        for source, run in zip(self._sources, runs, strict=True):
            log = source.reader.log
            report[run.name] = {
                **summarize(run.table).as_dict(),
                "num_train_images_from": source.images.source,
                "stopped": log.stopped,
                "killed": log.killed or None,
                "fatal": log.fatal or None,
                "warnings": log.warnings,
                "replaced": log.num_replaced,
                "lines": {
                    "read": log.num_lines,
                    "understood": log.num_events,
                    "other": log.num_other,
                    "unknown": log.num_unknown,
                },
            }
        return report


def _check_files(request: Request) -> None:
    """Raises UsageError for an output that would overwrite a log or another output."""
    taken = {}
    for path in request.paths:
        inside = path / "train.log" if path.is_dir() else path
        taken[inside.resolve()] = "a log that is read"
    for name in ("out", "html", "csv", "jsonl", "unknown"):
        out: Path | None = getattr(request, name)
        if out is None:
            continue
        place = out.resolve()
        if place in taken:
            raise UsageError(f"--{name} {out}: this is {taken[place]}", "give another file")
        taken[place] = f"the output of --{name}"
        refuse_foreign(out, force=request.force)


def _name(path: Path) -> str:
    """The name of a log in the legend: its run folder, else its file."""
    if str(path) == STDIN:
        return "standard input"
    path = path.resolve()
    return path.parent.name if path.name == "train.log" else path.name
