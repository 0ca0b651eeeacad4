"""Formats the status line of a training; estimates the time left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe import ui

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


def line(plan: Plan, now: StartState, rate: Rate, error: float | None) -> str:
    """Iteration, epoch, loss, learning rate, images per second, error and time left."""
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
        parts.append(f"validation error {error:.1f} %")
    left_s = seconds_left(plan, iteration, rate)
    if left_s is not None:
        parts.append(f"{ui.duration(left_s)} left")
    return ", ".join(parts)
