"""TrainResult: how a training ended, and a summary of its log."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import Irv2CaffeError, OutputError
from irv2caffe.log.read.reader import read_log
from irv2caffe.log.summary import summarize
from irv2caffe.log.table import make_table
from irv2caffe.train.run_dir.best import best_snapshot
from irv2caffe.train.run_dir.failure_causes import RESUME_COMMAND
from irv2caffe.train.run_dir.run_dir import read_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from irv2caffe.log.summary import Summary
    from irv2caffe.train.run.verdict import Verdict
    from irv2caffe.train.run_dir.best import BestSnapshot
    from irv2caffe.train.run_dir.run_dir import RunDir
    from irv2caffe.train.run_dir.snapshots import Pair


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    Attributes:
        run_dir: the run folder.
        verdict: how it ended.
        summary: summary of its log; None if Caffe has logged nothing.
        snapshot: the newest complete model, or None.
        best: the best snapshot, or None.
    """

    run_dir: Path
    verdict: Verdict
    summary: Summary | None
    snapshot: Path | None
    best: BestSnapshot | None = None

    def as_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return {
            "run_dir": str(self.run_dir),
            "ending": self.verdict.ending,
            "why": self.verdict.why,
            "hint": self.verdict.hint,
            "passing": self.verdict.retryable,
            "snapshot": str(self.snapshot) if self.snapshot is not None else None,
            "best": self.best.as_dict() if self.best is not None else None,
            "summary": self.summary.as_dict() if self.summary is not None else None,
        }


def conclude(
    run: RunDir,
    verdict: Verdict,
    newest: Pair | None,
    num_train: int | None,
    say: Callable[[str], None],
) -> TrainResult:
    """Summarizes the log, and records in the run folder how the training ended.

    Args:
        run: the run folder.
        verdict: how the last start ended.
        newest: the newest complete snapshot.
        num_train: number of training images, or None.
        say: called with a warning if something cannot be read or written.
    """
    summary = None
    try:
        summary = summarize(make_table(read_log(run.log), num_train_images=num_train))
    except Irv2CaffeError as error:
        say(f"warning: {error.message}")
    figures = summary.as_dict() if summary is not None else None
    ending = {"ending": verdict.ending.value, "why": verdict.why, "summary": figures}
    try:
        run.write_config({**read_config(run.path), **ending})
    except OutputError as error:
        say(f"warning: {error.message}")
    # Without the run's name the command would take runs/latest.
    named = f"{RESUME_COMMAND} {shlex.quote(str(run.path))}"
    verdict = replace(verdict, hint=verdict.hint.replace(RESUME_COMMAND, named))
    model = newest.model if newest is not None else None
    return TrainResult(run.path, verdict, summary, model, best_snapshot(run.path.absolute()))
