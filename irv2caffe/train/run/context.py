"""Context: the run, its plan and helpers, which all starts of one call share."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe import system

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from irv2caffe.panel import Status
    from irv2caffe.train.plan.plan import Plan
    from irv2caffe.train.run.best_tests import BestTests
    from irv2caffe.train.run.options import SupervisionOptions
    from irv2caffe.train.run.plotting import Plotter
    from irv2caffe.train.run.signals import Signals
    from irv2caffe.train.run.stall_watch import StallWatch
    from irv2caffe.train.run_dir.control import Requests
    from irv2caffe.train.run_dir.retention import SnapshotKeeper
    from irv2caffe.train.run_dir.run_dir import RunDir


@dataclass(frozen=True)
class Context:
    """The run, its plan and the helpers that all starts of one call share."""

    run: RunDir
    plan: Plan
    options: SupervisionOptions
    lock: IO[str]
    keeper: SnapshotKeeper
    best: BestTests
    stall_watch: StallWatch
    plotter: Plotter
    requests: Requests
    signals: Signals
    say: Callable[[str], None]
    status: Callable[[Status], None]

    def snapshot_bytes(self) -> int | None:
        """The size of a snapshot, or None where it is unknown."""
        disk = self.plan.disk
        return self.keeper.last_bytes or (disk.pair_bytes if disk is not None else None)

    def free_bytes(self) -> int | None:
        """Free space on the disk of the snapshots, or None where it is unknown."""
        with suppress(OSError):
            return system.free_bytes(self.run.snapshots)
        return None
