"""TrainOptions, the options of a training, and Plan, what will be done with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import Irv2CaffeError, PlanError
from irv2caffe.train.plan.job import layer_batch
from irv2caffe.train.run_dir.retention import KeepPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from irv2caffe.caffe.capability import Capability
    from irv2caffe.caffe.find import FoundCaffe
    from irv2caffe.check.finding import Finding
    from irv2caffe.data.inspect.database import Databases
    from irv2caffe.train.plan.databases import DatabaseUse
    from irv2caffe.train.plan.estimate import Estimate
    from irv2caffe.train.plan.gpus import Devices
    from irv2caffe.train.plan.job import Job
    from irv2caffe.train.plan.overrides import Value
    from irv2caffe.train.run_dir.snapshots import Pair

KEEP_EPOCHS = 10.0
# Snapshots that stay where nobody said how many: the newest, one before it, and one to spare.
_KEEP_NEWEST = 3


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training besides its solver.

    Attributes:
        gpus: ``none``, ``all`` or numbers.
        given: options that go over the solver's values.
        weights: models to start from.
        run_dir: the run folder, or None where it has no name yet.
        keep_newest: snapshots that stay; None keeps all that the solver asks for.
        keep_epochs: epochs between two snapshots that stay for good; 0 keeps none of them.
        moved: a run folder is resumed: the nets lie beside the solver.
        ignore_findings: errors of ``irv2caffe check`` do not keep the run from its start.
        values: of a recipe that the solver was built from, with sources.
        origin: what the solver was built from, where it is not kept.
        snapshot: of another run or program, that a new run goes on from.
        databases: that were read already, by their folders.
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


@dataclass(frozen=True)
class Disk:
    """Space that snapshots take.

    Attributes:
        pair_bytes: of one snapshot's two files, or None where that is not known yet.
        num_kept: snapshots that will lie there at the end.
        free_bytes: on the disk of the run folder.
    """

    pair_bytes: int | None
    num_kept: int
    free_bytes: int


@dataclass(frozen=True)
class Plan:
    """A run that can start, or the problems that prevent it.

    Attributes:
        job: solver and nets, with absolute paths.
        found: the Caffe that trains.
        can: its capabilities, or None where they are not known.
        devices: where it runs.
        options: what was asked for.
        databases: that the nets read.
        batch_size: of the TRAIN data layer, as Caffe will use it; 0 where it is not known.
        values: the resolved config, with sources.
        disk: space that snapshots take.
        estimate: memory that the run takes, or None where that is not known.
        findings: of ``irv2caffe check``, worst first.
        notes: for the user, one line each.
        problems: errors that prevent the start.
    """

    job: Job
    found: FoundCaffe
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
        """GPUs whose batches add up.

        BVLC gives every GPU a whole batch, NVCaffe divides one among them (parallel.cpp of each).
        """
        return self.devices.count if self.flavor == "bvlc" else 1

    @property
    def effective_batch(self) -> int:
        """Images per update."""
        return max(1, self.batch_size) * self.batch_factor * int(self.solver.iter_size)

    @property
    def num_train(self) -> int | None:
        """Training images, or None where the net does not read an LMDB."""
        return self._records("TRAIN")

    @property
    def num_val(self) -> int | None:
        """Validation images, or None."""
        return self._records("TEST")

    def _records(self, phase: str) -> int | None:
        return next((u.database.num_records for u in self.databases if u.phase == phase), None)

    @property
    def iterations_per_epoch(self) -> float | None:
        """Updates in a pass over the training set, where that is known."""
        if not self.num_train or not self.batch_size:
            return None
        return self.num_train / self.effective_batch

    @property
    def epochs(self) -> float | None:
        """Passes over the training set, where its size is known."""
        per_epoch = self.iterations_per_epoch
        return None if per_epoch is None else float(self.solver.max_iter) / per_epoch

    @property
    def tested(self) -> int:
        """Images that one test reads; 0 where that is not known."""
        return int(self.test_batch * self.solver.test_iter[0]) if self.solver.test_iter else 0

    @property
    def test_batch(self) -> int:
        """Images of a test's batch; 0 where that is not known."""
        return next((layer_batch(layer) for layer in self.job.data_layers("TEST")), 0)

    @property
    def keep(self) -> KeepPolicy:
        """Which snapshots stay: the newest, every tenth epoch's, and the solver's own.

        Where a number was given, the solver's own go too, and those of earlier calls.
        """
        options, per_epoch = self.options, self.iterations_per_epoch
        every = options.keep_epochs * per_epoch if per_epoch and options.keep_epochs else None
        if options.keep_newest is not None:
            return KeepPolicy(options.keep_newest, every)
        return KeepPolicy(_KEEP_NEWEST, every, int(self.solver.snapshot) or None, earlier=True)

    def raise_problems(self) -> None:
        """Raises what keeps the run from its start: the one problem, or all of them as one.

        Raises:
            Irv2CaffeError: if there is any.
        """
        if len(self.problems) == 1:
            raise self.problems[0]
        if self.problems:
            raise PlanError(self.problems)
