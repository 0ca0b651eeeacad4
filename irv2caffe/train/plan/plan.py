"""One plan before the start: what would end the run later is found now, all of it at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from irv2caffe.caffe.capability import Capability, capability
from irv2caffe.errors import InputError, Irv2CaffeError, PlanError
from irv2caffe.train.plan import checks, overrides
from irv2caffe.train.plan.databases import (
    DatabaseUse,
    check_locks,
    look_at_databases,
    read_databases,
)
from irv2caffe.train.plan.gpus import Devices, choose
from irv2caffe.train.plan.job import Job, layer_batch, noted, read_job

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from irv2caffe.caffe.find import FoundCaffe
    from irv2caffe.check.finding import Finding
    from irv2caffe.data.inspect.database import Databases
    from irv2caffe.train.plan.estimate import Estimate
    from irv2caffe.train.run_dir.retention import KeepPolicy
    from irv2caffe.train.run_dir.snapshots import Pair

KEEP_EPOCHS = 10.0


@dataclass(frozen=True)
class TrainOptions:
    """What is asked for besides a solver.

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
    values: tuple[overrides.Value, ...] = ()
    origin: str = ""
    snapshot: Pair | None = None
    databases: Databases = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A run that can start, or the problems that keep it from it.

    Attributes:
        job: solver and nets, with absolute paths.
        found: the Caffe that trains.
        can: what it can do, or None where it cannot be asked.
        devices: where it runs.
        options: what was asked for.
        databases: that the nets read.
        batch_size: of the TRAIN data layer, as Caffe will use it; 0 where it is not known.
        values: the resolved config, with sources.
        disk: what snapshots take.
        estimate: what the run takes of memory, or None where that is not known.
        findings: of ``irv2caffe check``, worst first.
        notes: what a person should know, one line each.
        problems: what must be mended first.
    """

    job: Job
    found: FoundCaffe
    can: Capability | None
    devices: Devices
    options: TrainOptions
    databases: tuple[DatabaseUse, ...]
    batch_size: int
    values: tuple[overrides.Value, ...]
    disk: checks.Disk | None = None
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
        """Which snapshots stay."""
        return checks.keep_policy(self)

    def raise_problems(self) -> None:
        """Raises what keeps the run from its start: the one problem, or all of them as one.

        Raises:
            Irv2CaffeError: if there is any.
        """
        if len(self.problems) == 1:
            raise self.problems[0]
        if self.problems:
            raise PlanError(self.problems)


def make_plan(solver_path: Path, found: FoundCaffe, options: TrainOptions = TrainOptions()) -> Plan:
    """Reads a solver and all it names, and checks everything.

    Args:
        solver_path: a solver prototxt.
        found: the Caffe that will train.
        options: what was asked for.

    Raises:
        MissingInputError: no solver there.
        FormatError: it is none, or names no net.
        UsageError: options that describe a net, which is given.
    """
    overrides.refuse_foreign(options.given)
    problems: list[Irv2CaffeError] = []
    can: Capability | None = None
    devices = Devices()
    with noted(problems):
        can = capability(found)
    with noted(problems):
        devices = choose(options.gpus, can)
    job = read_job(solver_path, problems, moved=options.moved)
    overrides.set_sources(job, options.given)
    facts = look_at_databases(job, options.databases)
    uses = read_databases(job, facts, problems)
    # NVCaffe takes no locks; docker gives a container databases on read-only mounts.
    takes_locks = (can is None or can.flavor == "bvlc") and not found.image
    if takes_locks and not options.ignore_findings:
        with noted(problems):
            check_locks(uses)
    plan = Plan(job, found, can, devices, options, tuple(uses), 0, ())
    with noted(problems):
        sharing = 1 if plan.flavor == "bvlc" else devices.count
        overrides.set_values(
            job, options.given, uses, factor=plan.batch_factor, num_sharing=sharing
        )
    if job.solver.max_iter < 1:
        problems.append(InputError(f"{solver_path}: max_iter is missing", "give --epochs"))
    values = (*options.values, *overrides.rows(job, options.given))
    plan = replace(plan, batch_size=_batch_size(plan), values=values)
    return checks.checked(plan, facts, problems)


def _batch_size(plan: Plan) -> int:
    """Of the TRAIN data layer; NVCaffe rounds it up to what its GPUs can share."""
    batch = next((layer_batch(layer) for layer in plan.job.data_layers("TRAIN")), 0)
    count = plan.devices.count
    return batch if plan.flavor == "bvlc" else -(-batch // count) * count
