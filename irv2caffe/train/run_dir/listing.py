"""Lists the runs of a folder: their states, errors and settings; writes nothing.

Each run takes three small files, or the end of a log where its trainer was killed. Nothing in them
is trusted, and a folder that is no run is listed with the reason.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import InputError, MissingInputError
from irv2caffe.system import read_json_object
from irv2caffe.train.run_dir.control import ending_of
from irv2caffe.train.run_dir.folders import RUNS, is_run, is_run_config
from irv2caffe.train.run_dir.lock import is_locked
from irv2caffe.train.run_dir.run_dir import RunDir, read_config
from irv2caffe.train.run_dir.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MOST_CHARS = 200


@dataclass(frozen=True)
class ListedRun:
    """A run of a folder.

    Attributes:
        name: of its folder.
        path: its folder.
        is_latest: whether ``latest`` points at it.
        state: ``starting``, ``running``, ``finished``, ``stopped``, ``diverged``, ``crashed``,
            ``stalled`` or ``interrupted``, whose trainer was killed.
        why: why it ended.
        iteration: of the newest display or test.
        max_iter: iterations of the whole training.
        last_top1_error: of the last test, in percent.
        best_top1_error: the smallest one.
        last_loss: the last displayed training loss.
        started: date and time of its first start.
        updated: of its last sign of life.
        seconds_left: estimated, while it runs.
        settings: by name.
    """

    name: str
    path: str
    is_latest: bool
    state: str
    why: str | None
    iteration: int | None
    max_iter: int | None
    last_top1_error: float | None
    best_top1_error: float | None
    last_loss: float | None
    started: str | None
    updated: str | None
    seconds_left: float | None
    settings: dict[str, Any] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class NoRun:
    """A folder that is no run of this program, or an incomplete one, and why."""

    name: str
    path: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """The runs of a folder, the oldest first, and its other folders."""

    folder: Path
    runs: tuple[ListedRun, ...]
    others: tuple[NoRun, ...]


def list_runs(folder: Path | None) -> Listing:
    """The runs in a folder, by default ``runs``, or the folder itself where it is a run.

    Raises:
        MissingInputError: there is no such folder.
        InputError: it cannot be read.
    """
    folder = RUNS if folder is None else folder
    if not folder.is_dir():
        raise MissingInputError(
            f"{folder} is no folder", "give the folder that holds the run folders"
        )
    if is_run(folder):
        return Listing(folder, (_listed(folder, read_config(folder), None),), ())
    try:
        paths = sorted(path for path in folder.iterdir() if path.name[:1] != ".")
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
    latest = _latest(folder)
    runs, others = [], []
    for path in paths:
        if path.name == "latest" and path.is_symlink() and latest in paths:
            continue
        config = read_config(path)
        reason = _is_no_run(path, config)
        if reason is None:
            runs.append(_listed(path, config, latest))
        elif reason:
            others.append(NoRun(path.name, str(path), reason))
    runs.sort(key=lambda run: (run.started or "", run.name))
    return Listing(folder, tuple(runs), tuple(others))


def _latest(folder: Path) -> Path | None:
    with suppress(OSError, ValueError):
        return folder / (folder / "latest").readlink()
    return None


def _is_no_run(path: Path, config: Mapping[str, Any]) -> str | None:
    """Why a path is no run; None for a run, empty for what is no folder."""
    try:
        if not path.is_dir():
            return ""
        names = {each.name for each in path.iterdir()}
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if "config.json" not in names:
        if any(name.endswith((".solverstate", ".solverstate.h5")) for name in names):
            return "snapshots of another program; train --resume continues them in a new run"
        return "no config.json"
    if not config:
        return "config.json cannot be read as a JSON object"
    if not is_run_config(config):
        return "config.json of another program"
    return None if "solver.prototxt" in names else "not started: no solver.prototxt"


def _listed(path: Path, config: Mapping[str, Any], latest: Path | None) -> ListedRun:
    run = RunDir(path)
    state = read_json_object(run.state)
    summary = config.get("summary")
    figures = summary if isinstance(summary, dict) else {}
    is_running = is_locked(run)
    if is_running:
        figures = {}
        name = "starting" if state.get("phase") in (None, "start", "ended") else "running"
    else:
        name = ending_of(run, config)
    best = _number(figures, "best_top1_error")
    return ListedRun(
        name=path.name or str(path),
        path=str(path),
        is_latest=latest is not None and path == latest,
        state=name[:_MOST_CHARS],
        why=None if is_running else _text(config, "why"),
        iteration=_count(figures, "iterations", _count(state, "iteration")),
        max_iter=_count(figures, "max_iter", _count(state, "max_iter")),
        last_top1_error=_number(figures, "last_top1_error", _number(state, "top1_error")),
        best_top1_error=_number(state, "best_top1_error") if best is None else best,
        last_loss=_number(figures, "last_loss", _number(state, "loss")),
        started=_text(config, "started"),
        updated=_text(state, "updated"),
        seconds_left=_number(state, "seconds_left") if is_running else None,
        settings=settings_of(config),
    )


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return value[:_MOST_CHARS] if isinstance(value, str) else None


def _number(values: Mapping[str, Any], name: str, default: float | None = None) -> float | None:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return default
    return value if math.isfinite(value) else default


def _count(values: Mapping[str, Any], name: str, default: int | None = None) -> int | None:
    value = values.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else default
