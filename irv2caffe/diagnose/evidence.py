"""Evidence for rules: the curves, the solver and nets, the databases, and tests of the model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from irv2caffe.check.arithmetic import comparisons
from irv2caffe.diagnose.measured import Measured
from irv2caffe.errors import Irv2CaffeError
from irv2caffe.log.read.debug_info import first_not_finite
from irv2caffe.log.summary import Summary, summarize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from irv2caffe.check.evidence import Evidence, PhaseNet
    from irv2caffe.check.finding import Finding as CheckFinding
    from irv2caffe.log.metrics import RunData
    from irv2caffe.log.read.debug_info import NotFinite
    from irv2caffe.log.read.history import Log
    from irv2caffe.log.table import TestRow


@dataclass(frozen=True, eq=False)
class RunEvidence:
    """Everything known about a run.

    Attributes:
        name: of the run, for the user.
        run: its rows and metrics.
        log: the history as read; None for a published curve.
        check: solver, nets and databases; None without files.
        check_findings: what the rules of ``check`` found in them.
        measured: tests of the model.
        run_dir: the run folder, if it is one.
        log_paths: the files of the log; empty without one.
        solver_path: the solver as a file that ``train`` can take; None if there is none.
        config: its config.json, whose contents are not trusted.
        notes: one line for each thing that was supposed, or could not be read.
    """

    name: str
    run: RunData
    log: Log | None = None
    check: Evidence | None = None
    check_findings: tuple[CheckFinding, ...] = ()
    measured: Measured = field(default_factory=Measured)
    run_dir: Path | None = None
    log_paths: tuple[Path, ...] = ()
    solver_path: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def summary(self) -> Summary:
        """The main numbers, and the anomalies."""
        return summarize(self.run.table)

    @cached_property
    def anomalies(self) -> frozenset[str]:
        """The kinds of anomalies of :mod:`irv2caffe.log.anomalies`."""
        return frozenset(one.kind for one in self.summary.anomalies)

    @cached_property
    def first_not_finite(self) -> NotFinite | None:
        """The first layer that a solver with ``debug_info`` showed as not finite; reads the log."""
        try:
            return first_not_finite(self.log_paths)
        except Irv2CaffeError:
            return None  # it is gone, or no longer what it was

    def found(self, name: str) -> CheckFinding | None:
        """The finding of a rule of ``check``, if there is one.

        An engine that shuffles makes up for a database that is not.
        """
        if name == "no-shuffle" and self.is_shuffled:
            return None
        return next((one for one in self.check_findings if one.rule == name), None)

    # Solver and nets.

    @property
    def has_solver(self) -> bool:
        """Whether the fields of the solver are known, from a file or the log."""
        return self.solver_file is not None or bool(self.log and self.log.fields)

    @property
    def solver_file(self) -> Any:
        """The SolverParameter, or None without a file."""
        return self.check.solver.message if self.check and self.check.solver else None

    def solver_value(self, name: str) -> Any:
        """A field of the solver, as written or by default; None if the solver is not known.

        For a log the fields that it printed count, and Caffe's default for the others.
        """
        from irv2caffe.proto import messages

        if self.solver_file is not None:
            return _plain(getattr(self.solver_file, name))
        if self.log is None or not self.log.fields:
            return None
        return self.log.fields.get(name, _plain(getattr(messages.SolverParameter(), name)))

    def net(self, phase: str) -> PhaseNet | None:
        """The first net of a phase, ``TRAIN`` or ``TEST``, if files are known."""
        nets = self.check.nets if self.check else ()
        return next((net for net in nets if net.phase == phase), None)

    @cached_property
    def num_classes(self) -> int | None:
        """Classes of the net."""
        train = self.net("TRAIN")
        if self.run.table.num_classes or train is None:
            return self.run.table.num_classes
        return next((classes for _, classes, _ in comparisons(train)), None)

    @property
    def effective_batch(self) -> int | None:
        """Images of an update: batch x iter_size x GPUs."""
        return self.run.table.images_per_iteration

    @property
    def torch_options(self) -> Mapping[str, Any]:
        """Options of the torch engine, whose values are not trusted; empty if Caffe trained."""
        torch = self.config.get("torch")
        options = torch.get("options") if isinstance(torch, dict) else None
        return options if isinstance(options, dict) else {}

    @property
    def is_shuffled(self) -> bool:
        """Whether the torch engine read the images of each epoch in another random order."""
        return self.torch_options.get("shuffle") is True

    @cached_property
    def num_val_images(self) -> int | None:
        """Images of a test: batch x test_iter; None if one of them is not known."""
        test = self.net("TEST")
        if test is not None and test.batch_size and test.test_iter:
            return test.batch_size * test.test_iter
        given = self.config.get("num_val_images")
        return given if type(given) is int and given > 0 else None

    # Curves.

    def at(self, iteration: float) -> str:
        """A place for the user: the epoch where it is known, else the iteration."""
        epoch = self.run.table.epoch(int(iteration))
        return f"iteration {iteration:,.0f}" if epoch is None else f"epoch {epoch:.3g}"

    @cached_property
    def tests(self) -> Sequence[TestRow]:
        """Tests with a finite top-1 error, without the one before the training."""
        return [
            row
            for row in self.run.table.test
            if row.top1_error is not None and math.isfinite(row.top1_error) and row.iteration > 0
        ]

    @cached_property
    def test_losses(self) -> list[tuple[int, float]]:
        """Iteration and loss of the tests after the start whose loss is finite."""
        return [
            (row.iteration, row.loss)
            for row in self.run.table.test
            if row.loss is not None and math.isfinite(row.loss) and row.iteration > 0
        ]

    @cached_property
    def num_iterations(self) -> int:
        """The last iteration."""
        return self.summary.iterations


def _plain(value: Any) -> Any:
    """A field of a message: a list if it is repeated, a float as it was written."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    return value if isinstance(value, (int, str)) or hasattr(value, "DESCRIPTOR") else list(value)
