"""The run folder: its names, the link to the latest, what it says of itself."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import file_aside, unwritable, write_text
from irv2caffe.errors import FormatError, InputError, MissingInputError, OutputExistsError
from irv2caffe.log.read.reader import read_lines
from irv2caffe.system import open_own, open_regular, read_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from irv2caffe.log.read.reader import Log

RUNS = Path("runs")
# Of these a config.json of ours holds at least one.
_MARKS = frozenset({"irv2caffe", "effective_batch"})

_PIECE_BYTES = 1 << 20
_ASIDE = re.compile(r"\.partial-.+-\w{8}(?:\.\w+)?|\.state\.json\.partial")
_OUR_SUFFIXES = frozenset(
    {
        ".json", ".jsonl", ".prototxt", ".log", ".sha256", ".solverstate", ".caffemodel",
        ".binaryproto", ".partial",
    }
)  # fmt: skip
_OLD_S = 3600.0
_LOG_TAIL_BYTES = 1 << 16
_START = re.compile(r"start-(\d{3,9})\.log")
# What a run folder's own files are called; nets and mean images in it get other names.
OWN_NAMES = frozenset(
    {
        "solver.prototxt", "deploy.prototxt", "train.log", "logs", "snapshots", "config.json",
        "metrics.jsonl", "state.json", "plot.png", "lock", "control", "latest", "snapshots.sha256",
    }
)  # fmt: skip


@dataclass(frozen=True)
class RunDir:
    """The files of one run."""

    path: Path

    @property
    def solver(self) -> Path:
        """The solver as Caffe is given it; written last, so that a folder with it can start."""
        return self.path / "solver.prototxt"

    @property
    def log(self) -> Path:
        """The logs of all starts, one after the other."""
        return self.path / "train.log"

    @property
    def logs(self) -> Path:
        """The folder of Caffe's own logs, one per start, as they came."""
        return self.path / "logs"

    def log_of(self, start: int) -> Path:
        """Caffe's own log of a start, counted from 1."""
        return self.logs / f"start-{start:03}.log"

    @property
    def snapshots(self) -> Path:
        """The folder of ``.caffemodel`` and ``.solverstate`` files."""
        return self.path / "snapshots"

    @property
    def config(self) -> Path:
        """What the run was made of and how it ended, as JSON."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per display and per test."""
        return self.path / "metrics.jsonl"

    @property
    def state(self) -> Path:
        """What happens now, as JSON."""
        return self.path / "state.json"

    @property
    def plot(self) -> Path:
        """The curves so far."""
        return self.path / "plot.png"

    @property
    def lock(self) -> Path:
        """Held by the trainer that works here, and by its Caffe."""
        return self.path / "lock"

    def write_config(self, values: Mapping[str, Any]) -> None:
        """Writes ``config.json``."""
        write_text(self.config, json.dumps(values, indent=2, default=str) + "\n")

    def starts(self) -> list[int]:
        """The numbers of the starts that have a log, in order."""
        found = (_START.fullmatch(path.name) for path in self.logs.glob("start-*.log"))
        return sorted(int(match[1]) for match in found if match)

    def num_starts(self) -> int:
        """How often Caffe was started in it."""
        return max(self.starts(), default=0)


def new_run_dir(path: Path | None) -> RunDir:
    """A run folder that holds no run yet: as named, or ``runs/DATE-TIME``.

    What a trainer left that was killed before its run was complete is taken over.

    Raises:
        OutputExistsError: it holds a run already, or something else.
        OutputError: it cannot be made.
    """
    if path is None:
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        path = RUNS / stamp
        for number in range(2, 1000):
            if not path.exists():
                break
            path = RUNS / f"{stamp}-{number}"
    refuse_used(path)
    run = RunDir(path)
    try:
        run.snapshots.mkdir(parents=True, exist_ok=True)
        run.logs.mkdir(exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    return run


def refuse_used(path: Path) -> None:
    """Raises OutputExistsError where a new run cannot go."""
    if not (path.exists() or path.is_symlink()):
        return
    run = RunDir(path)
    if path.is_dir() and (not any(path.iterdir()) or _is_half_made(run)):
        return
    if path.is_dir() and run.solver.is_file():
        raise OutputExistsError(
            f"{path} holds a run already",
            "--resume goes on with it; --run-dir names another folder",
        )
    raise OutputExistsError(
        f"{path} exists already and is not empty", "--run-dir names another folder"
    )


def _is_half_made(run: RunDir) -> bool:
    """Whether a trainer was killed here before its run was complete: Caffe was never started.

    A config.json of ours comes before anything that might be somebody else's.
    """
    if run.solver.exists() or not run.snapshots.is_dir():
        return False
    config = read_config(run.path)
    if _MARKS & config.keys():
        return not config.get("starts") and not run.starts()
    names = {path.name for path in run.path.iterdir() if not path.name.startswith(".partial-")}
    is_empty = not any(path.exists() and any(path.iterdir()) for path in (run.snapshots, run.logs))
    return is_empty and names <= {"lock", "snapshots", "logs"} and _is_lock(run.lock)


def _is_lock(path: Path) -> bool:
    """Whether a file is a lock of ours, or none is there."""
    return not path.exists() or path.stat().st_size == 0 or "child_pid" in read_json_object(path)


def is_run(path: Path) -> bool:
    """Whether this program made the folder: any trainer's folder may hold a solver."""
    return RunDir(path).solver.is_file() and bool(_MARKS & read_config(path).keys())


def existing_run_dir(path: Path | None) -> RunDir:
    """The run folder at a place, or the one that ``runs/latest`` points at; nothing is written.

    Raises:
        MissingInputError: there is none.
    """
    path = RUNS / "latest" if path is None else path
    if not is_run(path):
        raise MissingInputError(
            f"{path} holds no run",
            "give the folder that train made: it holds solver.prototxt, config.json and train.log",
        )
    return RunDir(path.resolve() if path.is_symlink() else path)


def make_complete(run: RunDir) -> None:
    """Makes the folders of a run that an older version left without.

    Raises:
        InputError: one of them is a link.
        OutputError: they cannot be made.
    """
    for folder in (run.snapshots, run.logs, run.path / "control"):
        if folder.is_symlink():  # from somebody else it may lead to any folder
            raise InputError(
                f"{folder} is a link: a run folder holds its files itself",
                f"put the folder in its place, or begin a new run: --resume {folder}/"
                "FILE.solverstate --run-dir NEW",
            )
    try:
        run.snapshots.mkdir(exist_ok=True)
        run.logs.mkdir(exist_ok=True)
        if run.log.is_file() and not run.num_starts():
            with run.log_of(1).open("xb") as stream, open_regular(run.log) as log:
                shutil.copyfileobj(log, stream)
    except OSError as error:
        raise unwritable(run.path, error) from error


def remove_left_over(run: RunDir) -> None:
    """Removes what a killed trainer was just writing; whoever calls holds the run folder.

    A figure or a table may be of somebody who looks at the run now: only old ones go.
    """
    for folder in (run.path, run.snapshots, run.logs):
        for path in folder.glob(".*partial*"):
            with contextlib.suppress(OSError):
                is_ours = _ASIDE.fullmatch(path.name) is not None
                found = path.lstat()
                is_old = time.time() - found.st_mtime > _OLD_S
                if (
                    stat.S_ISREG(found.st_mode)
                    and is_ours
                    and (path.suffix in _OUR_SUFFIXES or is_old)
                ):
                    path.unlink()


def copy_file(source: Path, target: Path) -> None:
    """Copies a regular file in one step.

    Raises:
        FormatError: the source cannot be read.
        OutputError: the target cannot be written.
    """
    try:
        stream = open_regular(source)
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", path=source) from error
    with stream, file_aside(target) as aside:
        try:
            with aside.open("wb") as copy:
                shutil.copyfileobj(stream, copy, _PIECE_BYTES)
        except OSError as error:
            raise unwritable(target, error) from error


def link_latest(run: RunDir) -> None:
    """Points ``latest``, beside the run folder, at it; what is no link to a run is left alone."""
    link = run.path.parent / "latest"
    if link.exists() and not (link.is_symlink() and is_run(link)):
        return
    aside = link.with_name(f".latest-{os.getpid()}")
    try:
        aside.symlink_to(run.path.name)
        aside.replace(link)
    except OSError:
        aside.unlink(missing_ok=True)  # a file system without links: a convenience is missing


def read_config(path: Path) -> dict[str, Any]:
    """The ``config.json`` of a run folder; empty where there is none."""
    return read_json_object(path / "config.json")


def starts_of(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The starts that a ``config.json`` tells of; it may be somebody else's."""
    starts = config.get("starts")
    return [one for one in starts if isinstance(one, dict)] if isinstance(starts, list) else []


def weights_of(config: Mapping[str, Any]) -> list[str]:
    """The models that a run started from, as its ``config.json`` says."""
    names = config.get("weights")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def write_state(run: RunDir, values: Mapping[str, Any]) -> None:
    """Says what happens now; not forced to the disk, and given up where there is no room."""
    aside = run.path / ".state.json.partial"
    try:
        with os.fdopen(open_own(aside, os.O_WRONLY | os.O_TRUNC), "w", encoding="utf-8") as stream:
            stream.write(json.dumps(values, default=str) + "\n")
        aside.replace(run.state)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def last_log(run: RunDir) -> Log:
    """What the end of the last start's log says; empty where there is none."""
    try:
        with open_regular(run.log_of(run.num_starts())) as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    return read_lines(lines)


def is_finished(run: RunDir) -> bool:
    """Whether the last start's log says that the training came to its end, its last test too."""
    log = last_log(run)
    return log.finished and not log.stopped and not log.interrupted
