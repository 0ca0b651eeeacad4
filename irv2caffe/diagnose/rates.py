"""Rates: the learning rate of a run, and how far one image moves the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from irv2caffe.check.arithmetic import learning_rate
from irv2caffe.check.rules.update import TYPES, solver_type
from irv2caffe.log.table import column

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence

_MAX_RATES = 500


@dataclass(frozen=True)
class Rates:
    """The learning rate over a run.

    Attributes:
        iterations: up to 500 of them, ascending.
        values: the rate at each.
    """

    iterations: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def highest(self) -> float:
        """The highest rate."""
        return max(self.values)

    @property
    def last(self) -> float:
        """The rate at the end."""
        return self.values[-1]

    def at(self, iteration: float) -> float:
        """The rate at an iteration."""
        place = int(np.searchsorted(self.iterations, iteration, "right")) - 1
        return self.values[max(0, place)]

    def first_below(self, share: float) -> float | None:
        """The iteration from which on the rate is below a share of the highest one."""
        for at, value in zip(reversed(self.iterations), reversed(self.values), strict=True):
            if value >= share * self.highest:
                return None if at == self.iterations[-1] else at
        return None

    @property
    def rises(self) -> bool:
        """Whether it is far higher than at the start."""
        return self.highest > 2 * self.values[0]

    @property
    def course(self) -> str:
        """The highest rate, as a sentence."""
        if self.rises:
            return f"The learning rate rises from {self.values[0]:.3g} to {self.highest:.3g}."
        return f"The learning rate is {self.highest:.3g} at its highest."

    @property
    def kept(self) -> str:
        """How much of the highest rate is left at the end."""
        if self.last > 0.99 * self.highest:
            return f"The rate is {self.last:.3g} from the start to the end."
        share = 100 * self.last / self.highest
        return f"The rate is still {self.last:.3g}, {share:.0f} % of its highest value."

    def steps_after(self, iteration: float) -> float:
        """The share of the sum of all rates that comes after an iteration."""
        pairs = list(zip(self.iterations, self.values, strict=True))
        total = math.fsum(self.values)
        return math.fsum(value for at, value in pairs if at > iteration) / total if total else 0.0


def rates_of(evidence: RunEvidence) -> Rates | None:
    """The rates as displayed, or by the solver where the curve has none."""
    rows = evidence.run.table.train
    rates = np.asarray(column(rows, "lr"), dtype=np.float64)
    known = np.flatnonzero(np.isfinite(rates) & (rates > 0))
    if known.size >= 2:
        some = known[np.unique(np.linspace(0, known.size - 1, _MAX_RATES).astype(int))]
        iterations = np.asarray(evidence.run.iterations, dtype=np.float64)[some]
        return Rates(tuple(iterations.tolist()), tuple(rates[some].tolist()))
    solver, end = evidence.solver_file, evidence.num_iterations
    if solver is None or end < 2:
        return None
    places = np.unique(np.linspace(0, end, _MAX_RATES).astype(int)).tolist()
    values = [learning_rate(solver, place) for place in places]
    is_usable = all(math.isfinite(value) and value > 0 for value in values)
    return Rates(tuple(map(float, places)), tuple(values)) if is_usable else None


def number(evidence: RunEvidence, name: str) -> float | None:
    """A field of the solver that is a number; None if the solver is not known.

    The solver that a log printed may hold anything.
    """
    value = evidence.solver_value(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def type_of_solver(evidence: RunEvidence) -> str:
    """The type of the solver, as in Caffe 1.0; empty if it is not known."""
    if evidence.solver_file is not None:
        return solver_type(evidence.solver_file)
    if not evidence.has_solver:
        return ""
    fields = evidence.log.fields if evidence.log else {}
    written = str(fields.get("type") or fields.get("solver_type") or "SGD")
    return next((name for name in TYPES if name.lower() == written.lower()), "")


def rate_per_image(evidence: RunEvidence) -> float | None:
    """How far one image moves the weights at first: rate / (1 - momentum) / effective batch.

    Only for solvers that are close to gradient descent: SGD, Nesterov, and RMSProp whose delta is
    large against the gradients.
    """
    kind, momentum = type_of_solver(evidence), number(evidence, "momentum") or 0.0
    delta, rates = number(evidence, "delta"), rates_of(evidence)
    is_descent = kind in {"SGD", "Nesterov"} or (kind == "RMSProp" and (delta or 0) >= 0.1)
    batch = evidence.effective_batch
    if not is_descent or rates is None or not batch or not 0 <= momentum < 1:
        return None
    return rates.highest / (1 - momentum) / batch
