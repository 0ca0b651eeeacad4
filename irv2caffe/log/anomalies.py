"""What is conspicuous in a run. Facts, no diagnosis.

Each rule is a function from the rows to what it found; one log triggers it and another does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.log import loss_rules, test_rules
from irv2caffe.log.metrics import Evidence, metrics_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.log.metrics import Metric
    from irv2caffe.log.table import Table

_RULES = (
    loss_rules.lost,
    loss_rules.pinned,
    loss_rules.exploded,
    loss_rules.fell_back,
    loss_rules.not_learning,
    loss_rules.rate_gone,
    loss_rules.stalled,
    test_rules.perfect,
    test_rules.collapsed,
    test_rules.overfitted,
    test_rules.plateau,
)


@dataclass(frozen=True)
class Anomaly:
    """Something conspicuous.

    Attributes:
        kind: ``nan``, ``pinned``, ``exploded``, ``stuck``, ``chance``, ``lr``, ``stall``,
            ``perfect``, ``collapse``, ``overfit`` or ``plateau``.
        iteration: where it begins.
        epoch: the same, or None where epochs are not known.
        text: for a person.
    """

    kind: str
    iteration: int
    epoch: float | None
    text: str


def find_anomalies(table: Table, metrics: Sequence[Metric] | None = None) -> tuple[Anomaly, ...]:
    """All that are found, by iteration.

    Args:
        table: of a run.
        metrics: of it, where they are at hand.
    """
    run = Evidence(table, metrics_of(table) if metrics is None else metrics)
    found = [
        Anomaly(kind, iteration, table.epoch(iteration), text)
        for rule in _RULES
        for kind, iteration, text in rule(run)
    ]
    return tuple(sorted(found, key=lambda anomaly: anomaly.iteration))
