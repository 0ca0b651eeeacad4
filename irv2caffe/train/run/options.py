"""How a training is looked after."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SupervisionOptions:
    """How a training is looked after.

    Attributes:
        max_restarts: after crashes and stalls, without a new snapshot in between.
        on_divergence: ``stop``, ``continue`` or ``rollback``.
        max_rollbacks: how often to go back.
        rollback_lr: multiplies the learning rate each time.
        stall_s: silence that counts as a stall; None takes the run's own rhythm, 0 never.
        snapshot_s: seconds between two snapshots besides the solver's own; 0 takes none.
        plot: keep plot.png up to date.
    """

    max_restarts: int = 5
    on_divergence: str = "stop"
    max_rollbacks: int = 3
    rollback_lr: float = 0.5
    stall_s: float | None = None
    snapshot_s: float = 3600.0
    plot: bool = True
