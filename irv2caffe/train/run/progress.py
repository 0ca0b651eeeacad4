"""The status of a training as it is shown; estimates the time left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe import ui
from irv2caffe.panel import Status

if TYPE_CHECKING:
    from irv2caffe.train.plan.plan import Plan
    from irv2caffe.train.run.tracker import Rate, StartState


def seconds_left(plan: Plan, iteration: int, rate: Rate) -> float | None:
    """Seconds until the end, including tests; None before the speed is known."""
    if rate.step_s is None:
        return None
    left = int(plan.solver.max_iter) - iteration
    interval = int(plan.solver.test_interval)
    tests = left // interval if interval else 0
    return max(0.0, left * rate.step_s + tests * (rate.test_s or 0.0))


def status(
    plan: Plan,
    now: StartState,
    rate: Rate,
    error: float | None,
    best: float | None = None,
    stopping: str = "",
) -> Status:
    """Iteration, epoch, loss, learning rate, images per second, errors and time left.

    Args:
        plan: the plan of the training.
        now: what this start has done.
        rate: its speed.
        error: the last validation error in percent, or None.
        best: the smallest one, or None.
        stopping: what a stop that was asked for waits for; empty without one.
    """
    iteration = now.iteration or 0
    parts = [f"iteration {iteration:,} of {plan.solver.max_iter:,}"]
    if plan.iterations_per_epoch:
        parts.append(f"epoch {iteration / plan.iterations_per_epoch:.2f}")
    if now.loss is not None:
        parts.append(f"loss {now.loss:.4g}")
    if now.lr is not None:
        parts.append(f"lr {now.lr:.3g}")
    if rate.step_s:
        parts.append(f"{plan.effective_batch / rate.step_s:.1f} images/s")
    if error is not None:
        lowest = "" if best is None else f", best {best:.1f} %"
        parts.append(f"validation error {error:.1f} %{lowest}")
    left_s = None if stopping else seconds_left(plan, iteration, rate)
    left = "" if left_s is None else f"{ui.duration(left_s)} left"
    share = min(1.0, iteration / max(1, plan.solver.max_iter))
    return Status(share, tuple(parts), left, stopping or ("testing" if now.phase == "test" else ""))
