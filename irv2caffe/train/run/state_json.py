"""The contents of ``state.json``, which other processes read while a run goes on."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from irv2caffe.train.run import progress

if TYPE_CHECKING:
    from irv2caffe.train.plan.plan import Plan
    from irv2caffe.train.run.tracker import Rate, StartState
    from irv2caffe.train.run_dir.best import BestSnapshot
    from irv2caffe.train.run_dir.snapshots import Pair


def state_values(
    plan: Plan,
    now: StartState,
    rate: Rate,
    *,
    phase: str,
    errors: progress.Errors,
    newest: Pair | None,
    best: BestSnapshot | None,
) -> dict[str, Any]:
    """The state of a training as JSON values.

    Args:
        plan: of the run.
        now: its state.
        rate: its speed.
        phase: ``start``, ``train``, ``test`` or ``ended``.
        errors: of its tests.
        newest: the newest complete snapshot.
        best: the best snapshot.
    """
    return {
        "phase": phase,
        "progress": (
            progress.status(plan, now, rate, errors).line() if now.iteration is not None else None
        ),
        "iteration": now.iteration,
        "max_iter": plan.solver.max_iter,
        "loss": now.loss if now.diverged is None else None,
        "lr": now.lr,
        "top1_error": errors.last,
        "best_top1_error": errors.best,
        "seconds_left": progress.seconds_left(plan, now.iteration or 0, rate),
        "snapshot": str(newest.state) if newest is not None else None,
        "best": best.as_dict() if best is not None else None,
        "updated": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
