"""``metrics.jsonl``: one JSON object per display of the loss and per test."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import file_aside
from irv2caffe.system import open_own, open_regular
from irv2caffe.train.run.tracker import Row, Tracker

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.train.run_dir.run_dir import RunDir

_MOST_WAITING = 1000
_MAX_LINE_BYTES = 1 << 20


class MetricsFile:
    """Appends rows; after a failed write it stops, and the next start rewrites the file."""

    def __init__(self, path: Path, start: int, batch: int, num_train: int | None) -> None:
        """Writes nothing yet.

        Args:
            path: the file.
            start: number of the start that the rows belong to.
            batch: images per update.
            num_train: images of an epoch, or None.
        """
        self._path = path
        self._start = start
        self._batch = batch
        self._num_train = num_train
        self._waiting: list[str] = []
        self._behind = False

    def add(self, row: Row) -> None:
        """Adds a row, which :meth:`flush` writes; it is called here for many rows."""
        self._waiting.append(json.dumps(self.complete(row), allow_nan=False) + "\n")
        if len(self._waiting) >= _MOST_WAITING:
            self.flush()

    def flush(self) -> None:
        """Writes the added rows at once."""
        lines = "".join(self._waiting).encode()
        self._waiting.clear()
        if not lines or self._behind:
            return
        try:
            handle = open_own(self._path, os.O_WRONLY | os.O_APPEND)
            with os.fdopen(handle, "ab", buffering=0) as stream:
                self._behind = stream.write(lines) != len(lines)
        except OSError:
            self._behind = True

    def complete(self, row: Row) -> Row:
        """The row with epoch, speed and start; NaN and infinity become null."""
        whole: Row = {
            "kind": row["kind"],
            "iteration": row["iteration"],
            "epoch": row["iteration"] * self._batch / self._num_train if self._num_train else None,
        }
        step_s = row.get("step_s")
        for name, value in row.items():
            if name not in whole and name != "step_s":
                whole[name] = value
        if row["kind"] == "train":
            whole["images_per_second"] = self._batch / step_s if step_s else None
        whole["start"] = self._start
        finite = _finite(whole)
        assert isinstance(finite, dict)
        return finite


def rebuild(run: RunDir, batch: int, num_train: int | None, *, before: int | None) -> None:
    """Rewrites the metrics from the logs of all starts.

    Where a start began at a snapshot, it replaces the later rows of earlier starts.

    Args:
        run: the run folder.
        batch: images per update.
        num_train: images of an epoch, or None.
        before: the iteration at which the next start begins, or None.

    Raises:
        OutputError: it cannot be written.
    """
    kept: list[tuple[int, bytes]] = []
    for number in run.starts():
        path = run.log_of(number)
        metrics = MetricsFile(path, number, batch, num_train)
        _read(path, metrics, kept)
    with file_aside(run.metrics) as aside, aside.open("wb") as stream:
        for iteration, line in kept:
            if before is None or iteration < before:
                stream.write(line)


def _read(path: Path, metrics: MetricsFile, kept: list[tuple[int, bytes]]) -> None:
    """Adds the rows of one start, and removes those that they replace."""
    is_first = True

    def take(row: Row) -> None:
        nonlocal is_first
        if is_first:
            is_first = False
            kept[:] = [entry for entry in kept if entry[0] < row["iteration"]]
        line = json.dumps(metrics.complete(row), allow_nan=False) + "\n"
        kept.append((row["iteration"], line.encode()))

    tracker = Tracker(take)
    with open_regular(path) as log:
        while line := log.readline(_MAX_LINE_BYTES):
            tracker.line(line.decode("utf-8", "replace").rstrip("\r\n"))
    tracker.finish()


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return value
