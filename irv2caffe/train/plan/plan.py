"""TrainOptions, the options of a training, and Plan, the checked training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import Irv2CaffeError, PlanError
from irv2caffe.train.plan.criterion import AUTO, parse_criterion
from irv2caffe.train.plan.job import layer_batch
from irv2caffe.train.run_dir.retention import KeepPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from irv2caffe.caffe.capability import Capability
    from irv2caffe.check.finding import Finding
    from irv2caffe.data.inspect.database import Databases
    from irv2caffe.train.engines.engine import Engine
    from irv2caffe.train.plan.criterion import Criterion
    from irv2caffe.train.plan.databases import DatabaseUse
    from irv2caffe.train.plan.estimate import Estimate
    from irv2caffe.train.plan.gpus import Devices
    from irv2caffe.train.plan.job import Job
    from irv2caffe.train.plan.overrides import Value
    from irv2caffe.train.run_dir.snapshots import Pair

KEEP_EPOCHS = 10.0
# Default of --keep-snapshots.
_KEEP_NEWEST = 3


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training besides its solver.

    Attributes:
        gpus: ``none``, ``all`` or GPU numbers.
        given: options that override values of the solver.
        weights: models to start from.
        run_dir: the run folder, or None to choose a name later.
        keep_newest: number of snapshots to keep; None also keeps the solver's own.
        keep_epochs: epochs between snapshots that are kept for good; 0 keeps none of them.
        moved: the run is resumed: read the nets beside the solver.
        ignore_findings: start despite errors of ``irv2caffe check``.
        values: values of the recipe that the solver was built from, with their sources.
        origin: name of that recipe, if the solver is temporary.
        snapshot: snapshot of another run or program that a new run continues from.
        databases: databases that are already read, by folder.
        best: which test is the best one: ``auto``, ``top1``, ``top5``, ``loss``, ``none`` or an
            output, which ``:min`` or ``:max`` may follow.
    """

    gpus: str = "none"
    given: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[Path, ...] = ()
    run_dir: Path | None = None
    keep_newest: int | None = None
    keep_epochs: float = KEEP_EPOCHS
    moved: bool = False
    ignore_findings: bool = False
    values: tuple[Value, ...] = ()
    origin: str = ""
    snapshot: Pair | None = None
    databases: Databases = field(default_factory=dict)
    best: str = AUTO


@dataclass(frozen=True)
class Disk:
    """Disk space that snapshots need.

    Attributes:
        pair_bytes: size of one snapshot's two files, or None if unknown.
        num_kept: number of snapshots at the end of the run.
        free_bytes: free space on the disk of the run folder.
    """

    pair_bytes: int | None
    num_kept: int
    free_bytes: int


@dataclass(frozen=True)
class Plan:
    """A run that can start, or the problems that prevent it.

    Attributes:
        job: the solver and its nets, with absolute paths.
        engine: the program that trains.
        can: its capabilities, or None if unknown.
        devices: the GPUs or the CPU.
        options: the options of the training.
        databases: the databases that the nets read.
        batch_size: batch size of the TRAIN data layer as Caffe will use it; 0 if unknown.
        values: the resolved config, with sources.
        disk: disk space that snapshots need.
        estimate: memory that the run needs, or None if unknown.
        findings: of ``irv2caffe check``, worst first.
        notes: for the user, one line each.
        problems: errors that prevent the start.
    """

    job: Job
    engine: Engine
    can: Capability | None
    devices: Devices
    options: TrainOptions
    databases: tuple[DatabaseUse, ...]
    batch_size: int
    values: tuple[Value, ...]
    disk: Disk | None = None
    estimate: Estimate | None = None
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[Irv2CaffeError, ...] = ()

    @property
    def solver(self) -> Any:
        """The SolverParameter."""
        return self.job.solver

    @property
    def gpus(self) -> str:
        """Device numbers as Caffe takes them, or empty for the CPU."""
        return self.devices.argument

    @property
    def flavor(self) -> str:
        """``bvlc`` or ``nvcaffe``."""
        return self.can.flavor if self.can is not None else "bvlc"

    @property
    def batch_factor(self) -> int:
        """Number of GPUs whose batches add up.

        BVLC gives every GPU a whole batch, NVCaffe divides one among them (parallel.cpp of each).
        """
        return self.devices.count if self.flavor == "bvlc" else 1

    @property
    def effective_batch(self) -> int:
        """Images per update."""
        return max(1, self.batch_size) * self.batch_factor * int(self.solver.iter_size)

    @property
    def num_train(self) -> int | None:
        """Number of training images, or None if the net does not read an LMDB."""
        return self._records("TRAIN")

    @property
    def num_val(self) -> int | None:
        """Number of validation images, or None if the net does not read an LMDB."""
        return self._records("TEST")

    def _records(self, phase: str) -> int | None:
        return next((u.database.num_records for u in self.databases if u.phase == phase), None)

    @property
    def iterations_per_epoch(self) -> float | None:
        """Updates per pass over the training set, or None if unknown."""
        if not self.num_train or not self.batch_size or self.solver.iter_size < 1:
            return None
        return self.num_train / self.effective_batch

    @property
    def epochs(self) -> float | None:
        """Passes over the training set, or None if its size is unknown."""
        per_epoch = self.iterations_per_epoch
        return None if per_epoch is None else float(self.solver.max_iter) / per_epoch

    @property
    def tested(self) -> int:
        """Images that one test reads; 0 if unknown."""
        return int(self.test_batch * self.solver.test_iter[0]) if self.solver.test_iter else 0

    @property
    def test_batch(self) -> int:
        """Batch size of a test; 0 if unknown."""
        return next((layer_batch(layer) for layer in self.job.data_layers("TEST")), 0)

    @property
    def criterion(self) -> Criterion | None:
        """Which test is the best one; None without tests."""
        has_tests = self.solver.test_interval and self.solver.test_iter
        return parse_criterion(self.options.best) if has_tests else None

    @property
    def keep(self) -> KeepPolicy:
        """The snapshots to keep: the newest, every tenth epoch's, and the solver's own.

        With --keep-snapshots, the solver's own and those of earlier calls are removed too.
        """
        options, per_epoch = self.options, self.iterations_per_epoch
        every = options.keep_epochs * per_epoch if per_epoch and options.keep_epochs else None
        if options.keep_newest is not None:
            return KeepPolicy(options.keep_newest, every)
        return KeepPolicy(_KEEP_NEWEST, every, int(self.solver.snapshot) or None, earlier=True)

    def raise_problems(self) -> None:
        """Raises the problems that prevent the start, several of them as one error.

        Raises:
            Irv2CaffeError: if there is any.
        """
        if len(self.problems) == 1:
            raise self.problems[0]
        if self.problems:
            raise PlanError(self.problems)
