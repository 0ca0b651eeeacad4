"""The status of a training as it is shown; estimates the time left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from irv2caffe import ui
from irv2caffe.panel import Status

if TYPE_CHECKING:
    from irv2caffe.train.plan.plan import Plan
    from irv2caffe.train.run.tracker import Rate, StartState
    from irv2caffe.train.run_dir.best import BestSnapshot


@dataclass
class Errors:
    """Top-1 errors of the first test net, in percent; None if unknown.

    Attributes:
        last: of the last test.
        best: the smallest one.
    """

    last: float | None = None
    best: float | None = None

    @classmethod
    def of(cls, snapshot: BestSnapshot | None) -> Self:
        """Before the first test of a start that keeps the best snapshot of earlier ones."""
        error = None if snapshot is None else snapshot.test.get("top1_error")
        return cls(best=error if isinstance(error, (int, float)) else None)

    def take(self, error: float | None) -> None:
        """Takes the error of a test."""
        self.last = error
        if error is not None:
            self.best = error if self.best is None else min(self.best, error)


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
    errors: Errors,
    stopping: str = "",
) -> Status:
    """Iteration, epoch, loss, learning rate, images per second, errors and time left.

    Args:
        plan: the plan of the training.
        now: what this start has done.
        rate: its speed.
        errors: of its tests.
        stopping: what a stop that was asked for waits for; empty without one.
    """
    if now.iteration is None:
        return Status(0.0, (), note=stopping or f"{plan.engine.title} is starting")
    iteration = now.iteration
    parts = [f"iteration {iteration:,} of {plan.solver.max_iter:,}"]
    if plan.iterations_per_epoch:
        parts.append(f"epoch {iteration / plan.iterations_per_epoch:.2f}")
    if now.loss is not None:
        parts.append(f"loss {now.loss:.4g}")
    if now.lr is not None:
        parts.append(f"lr {now.lr:.3g}")
    if rate.step_s:
        parts.append(f"{plan.effective_batch / rate.step_s:.1f} images/s")
    if errors.last is not None:
        parts.append(f"validation error {errors.last:.1f} %, best {errors.best:.1f} %")
    left_s = None if stopping else seconds_left(plan, iteration, rate)
    left = "" if left_s is None else f"{ui.duration(left_s)} left"
    share = min(1.0, iteration / max(1, plan.solver.max_iter))
    return Status(share, tuple(parts), left, stopping or ("testing" if now.phase == "test" else ""))
