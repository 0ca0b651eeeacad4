"""Writes ``metrics.jsonl``: one JSON object per display of the loss and per test."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import atomic_file
from irv2caffe.system import open_for_writing, open_regular
from irv2caffe.train.run.tracker import Row, Tracker

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.train.run_dir.run_dir import RunDir

_MAX_WAITING = 1000
_MAX_LINE_BYTES = 1 << 20


@dataclass
class MetricsFile:
    """Appends rows; after a failed write it stops, and the next start rewrites the file.

    Attributes:
        path: the file.
        start: number of the start that the rows belong to.
        batch: images per update.
        num_train: number of training images, or None.
    """

    path: Path
    start: int
    batch: int
    num_train: int | None
    _waiting: list[str] = field(default_factory=list, init=False)
    _has_failed: bool = field(default=False, init=False)

    def add(self, row: Row) -> None:
        """Adds a row, which :meth:`flush` writes; flushes after many rows."""
        self._waiting.append(self.line(row))
        if len(self._waiting) >= _MAX_WAITING:
            self.flush()

    def flush(self) -> None:
        """Writes the added rows at once."""
        lines = "".join(self._waiting).encode()
        self._waiting.clear()
        if not lines or self._has_failed:
            return
        try:
            handle = open_for_writing(self.path, os.O_WRONLY | os.O_APPEND)
            with os.fdopen(handle, "ab", buffering=0) as stream:
                self._has_failed = stream.write(lines) != len(lines)
        except OSError:
            self._has_failed = True

    def line(self, row: Row) -> str:
        """A row as a line of the file."""
        return json.dumps(self.complete(row), allow_nan=False) + "\n"

    def complete(self, row: Row) -> Row:
        """The row with epoch, speed and start; NaN and infinity become null."""
        whole: Row = {
            "kind": row["kind"],
            "iteration": row["iteration"],
            "epoch": row["iteration"] * self.batch / self.num_train if self.num_train else None,
        }
        step_s = row.get("step_s")
        for name, value in row.items():
            if name not in whole and name != "step_s":
                whole[name] = value
        if row["kind"] == "train":
            whole["images_per_second"] = self.batch / step_s if step_s else None
        whole["start"] = self.start
        finite = _finite(whole)
        assert isinstance(finite, dict)
        return finite


def rebuild(run: RunDir, batch: int, num_train: int | None, *, before: int | None) -> None:
    """Rewrites the metrics from the logs of all starts.

    A start from a snapshot replaces the later rows of earlier starts.

    Args:
        run: the run folder.
        batch: images per update.
        num_train: number of training images, or None.
        before: the iteration at which the next start begins, or None.

    Raises:
        OutputError: it cannot be written.
    """
    kept: list[tuple[int, str]] = []
    for number in run.starts():
        rows = _rows_of(run.log_of(number), number, batch, num_train)
        if rows:
            kept = [row for row in kept if row[0] < rows[0][0]] + rows
    with atomic_file(run.metrics) as aside, aside.open("w", encoding="utf-8") as stream:
        stream.writelines(line for at, line in kept if before is None or at < before)


def _rows_of(log: Path, start: int, batch: int, num_train: int | None) -> list[tuple[int, str]]:
    """Iteration and line of each row of a start."""
    metrics = MetricsFile(log, start, batch, num_train)
    rows: list[tuple[int, str]] = []
    tracker = Tracker(lambda row: rows.append((row["iteration"], metrics.line(row))))
    with open_regular(log) as lines:
        while line := lines.readline(_MAX_LINE_BYTES):
            tracker.line(line.decode("utf-8", "replace").rstrip("\r\n"))
    tracker.finish()
    return rows


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return value
