"""RunDir: the files of a run folder, its records, and the end of its newest log."""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import write_text
from irv2caffe.log.read.reader import read_lines
from irv2caffe.system import open_for_writing, open_regular, read_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from irv2caffe.log.read.history import Log

_START = re.compile(r"start-(\d{3,9})\.log")
_LOG_TAIL_BYTES = 1 << 16


class RunDir:
    """The paths of a run folder.

    Attributes:
        path: the folder itself.
        solver: the solver that Caffe reads; written last, so its folder is complete.
        log: the logs of all starts, concatenated.
        logs: the folder of Caffe's own logs, one file per start.
        snapshots: the folder of ``.caffemodel`` and ``.solverstate`` files.
        config: the inputs of the run, its starts and how it ended, as JSON.
        metrics: one JSON object per display and per test.
        state: the current state of the training, as JSON.
        diagnosis: what the log tells at the end of the last start, as JSON.
        plot: the curves, drawn while the run goes on.
        lock: the lock file, held by the trainer and its Caffe.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.solver = path / "solver.prototxt"
        self.log = path / "train.log"
        self.logs = path / "logs"
        self.snapshots = path / "snapshots"
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.state = path / "state.json"
        self.diagnosis = path / "diagnosis.json"
        self.plot = path / "plot.png"
        self.lock = path / "lock"

    def log_of(self, start: int) -> Path:
        """Caffe's own log of a start; the first is 1."""
        return self.logs / f"start-{start:03}.log"

    def write_config(self, values: Mapping[str, Any]) -> None:
        """Writes ``config.json``."""
        write_text(self.config, json.dumps(values, indent=2, default=str) + "\n")

    def starts(self) -> list[int]:
        """The numbers of the starts that have a log, in order."""
        found = (_START.fullmatch(path.name) for path in self.logs.glob("start-*.log"))
        return sorted(int(match[1]) for match in found if match)

    def num_starts(self) -> int:
        """Number of starts of Caffe that have a log."""
        return max(self.starts(), default=0)


def read_config(path: Path) -> dict[str, Any]:
    """The ``config.json`` of a run folder; empty without the file."""
    return read_json_object(path / "config.json")


def starts_of(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The starts in a ``config.json``, whose contents are not trusted."""
    starts = config.get("starts")
    return [one for one in starts if isinstance(one, dict)] if isinstance(starts, list) else []


def weights_of(config: Mapping[str, Any]) -> list[str]:
    """The models that a run started from, read from a ``config.json``."""
    names = config.get("weights")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def write_state(run: RunDir, values: Mapping[str, Any]) -> None:
    """Writes ``state.json`` without forcing it to the disk; skipped if the disk is full."""
    aside = run.path / ".state.json.partial"
    try:
        with os.fdopen(
            open_for_writing(aside, os.O_WRONLY | os.O_TRUNC), "w", encoding="utf-8"
        ) as stream:
            stream.write(json.dumps(values, default=str) + "\n")
        aside.replace(run.state)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def last_log(run: RunDir) -> Log:
    """The parsed end of the last start's log; empty without a log."""
    try:
        with open_regular(run.log_of(run.num_starts())) as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    return read_lines(lines)


def is_finished(run: RunDir) -> bool:
    """Whether the training and its last test are complete, by the last start's log."""
    log = last_log(run)
    return log.finished and not log.stopped and not log.interrupted
