"""Creates, finds and cleans run folders."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import atomic_file, write_error
from irv2caffe.errors import FormatError, InputError, MissingInputError, OutputExistsError
from irv2caffe.system import open_regular, read_json_object
from irv2caffe.train.run_dir.run_dir import RunDir, read_config

if TYPE_CHECKING:
    from collections.abc import Mapping

RUNS = Path("runs")
# A config.json of this program holds at least one of these keys.
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
# File names that nets and mean images in the run folder must not use.
OWN_NAMES = frozenset(
    {
        "solver.prototxt", "deploy.prototxt", "train.log", "logs", "snapshots", "config.json",
        "metrics.jsonl", "state.json", "plot.png", "lock", "control", "latest", "snapshots.sha256",
        "labels.txt", "diagnosis.json",
    }
)  # fmt: skip


def new_run_dir(path: Path | None) -> RunDir:
    """Creates a new run folder: the given one, or ``runs/DATE-TIME``.

    A folder that a trainer left incomplete when it was killed is reused.

    Raises:
        OutputExistsError: it already holds a run or other files.
        OutputError: it cannot be created.
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
        raise write_error(path, error) from error
    return run


def refuse_used(path: Path) -> None:
    """Raises OutputExistsError for a folder that a new run cannot use."""
    if not (path.exists() or path.is_symlink()):
        return
    run = RunDir(path)
    if path.is_dir() and (not any(path.iterdir()) or _is_incomplete(run)):
        return
    if path.is_dir() and run.solver.is_file():
        raise OutputExistsError(
            f"{path} already holds a run",
            "continue it with --resume, or name another folder with --run-dir",
        )
    raise OutputExistsError(
        f"{path} already exists and is not empty", "name another folder with --run-dir"
    )


def _is_incomplete(run: RunDir) -> bool:
    """Whether a trainer was killed here before it started Caffe for the first time.

    The config.json is written before any file that could belong to another program.
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
    """Whether a file is a lock of this program, or does not exist."""
    return not path.exists() or path.stat().st_size == 0 or "child_pid" in read_json_object(path)


def is_run(path: Path) -> bool:
    """Whether a folder is a run of this program; a solver alone may come from any trainer."""
    return RunDir(path).solver.is_file() and is_run_config(read_config(path))


def is_run_config(config: Mapping[str, Any]) -> bool:
    """Whether the contents of a ``config.json`` are this program's."""
    return bool(_MARKS & config.keys())


def existing_run_dir(path: Path | None) -> RunDir:
    """The run folder at a path, or the one that ``runs/latest`` points at; writes nothing.

    Raises:
        MissingInputError: there is none.
    """
    path = RUNS / "latest" if path is None else path
    if not is_run(path):
        raise MissingInputError(
            f"{path} holds no run",
            "give a folder written by train: it holds solver.prototxt, config.json and train.log",
        )
    return RunDir(path.resolve() if path.is_symlink() else path)


def add_missing_folders(run: RunDir) -> None:
    """Adds the folders that runs of older versions lack, and the log of their first start.

    Raises:
        InputError: one of them is a link.
        OutputError: they cannot be created.
    """
    for folder in (run.snapshots, run.logs, run.path / "control"):
        if folder.is_symlink():  # an untrusted run folder may link to any place
            raise InputError(
                f"{folder} is a link: the files must be in the run folder itself",
                f"replace it by the folder, or start a new run: --resume {folder}/"
                "FILE.solverstate --run-dir NEW",
            )
    try:
        run.snapshots.mkdir(exist_ok=True)
        run.logs.mkdir(exist_ok=True)
        if run.log.is_file() and not run.num_starts():
            with run.log_of(1).open("xb") as stream, open_regular(run.log) as log:
                shutil.copyfileobj(log, stream)
    except OSError as error:
        raise write_error(run.path, error) from error


def remove_leftovers(run: RunDir) -> None:
    """Removes files that a killed trainer was writing; the caller holds the lock.

    Another process may be writing a figure or a table: only old ones of these are removed.
    """
    for folder in (run.path, run.snapshots, run.logs):
        for path in folder.glob(".*partial*"):
            with contextlib.suppress(OSError):
                found = path.lstat()
                is_ours = stat.S_ISREG(found.st_mode) and _ASIDE.fullmatch(path.name) is not None
                is_old = time.time() - found.st_mtime > _OLD_S
                if is_ours and (path.suffix in _OUR_SUFFIXES or is_old):
                    path.unlink()


def copy_file(source: Path, target: Path) -> None:
    """Copies a regular file; the target appears complete or not at all.

    Raises:
        FormatError: the source cannot be read.
        OutputError: the target cannot be written.
    """
    try:
        stream = open_regular(source)
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", path=source) from error
    with stream, atomic_file(target) as aside:
        try:
            with aside.open("wb") as copy:
                shutil.copyfileobj(stream, copy, _PIECE_BYTES)
        except OSError as error:
            raise write_error(target, error) from error


def link_latest(run: RunDir) -> None:
    """Points the link ``latest`` beside the run folder at it; leaves other files alone."""
    link = run.path.parent / "latest"
    if link.exists() and not (link.is_symlink() and is_run(link)):
        return
    aside = link.with_name(f".latest-{os.getpid()}")
    try:
        aside.symlink_to(run.path.name)
        aside.replace(link)
    except OSError:
        aside.unlink(missing_ok=True)  # the file system has no links
