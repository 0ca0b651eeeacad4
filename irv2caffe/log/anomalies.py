"""Finds anomalies in the displays and tests of a run; each rule is a function of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.log import loss_rules, validation_rules

if TYPE_CHECKING:
    from irv2caffe.log.metrics import RunData

_RULES = (
    loss_rules.nan_loss,
    loss_rules.pinned_loss,
    loss_rules.exploding_loss,
    loss_rules.collapsed_loss,
    loss_rules.stuck_loss,
    loss_rules.vanished_learning_rate,
    loss_rules.stalls,
    validation_rules.perfect_accuracy,
    validation_rules.collapsed_outputs,
    validation_rules.overfitting,
    validation_rules.plateau,
    validation_rules.swinging_error,
    validation_rules.past_best,
)


@dataclass(frozen=True)
class Anomaly:
    """Something unusual in a run.

    Attributes:
        kind: ``nan``, ``pinned``, ``exploded``, ``stuck``, ``chance``, ``lr``, ``stall``,
            ``perfect``, ``collapse``, ``overfit``, ``rising``, ``plateau``, ``swing`` or
            ``past-best``.
        iteration: where it begins.
        epoch: where it begins, or None where epochs are not known.
        text: a description.
    """

    kind: str
    iteration: int
    epoch: float | None
    text: str


def find_anomalies(run: RunData) -> tuple[Anomaly, ...]:
    """All anomalies of a run, by iteration."""
    found = [
        Anomaly(kind, iteration, run.table.epoch(iteration), text)
        for rule in _RULES
        for kind, iteration, text in rule(run)
    ]
    return tuple(sorted(found, key=lambda anomaly: anomaly.iteration))
