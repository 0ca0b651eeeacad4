"""Times on the GPU."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def seconds_each(function: Callable[[], Any], *, repeats: int = 20, warm_ups: int = 3) -> float:
    """Median time of a call."""
    for _ in range(warm_ups):
        function()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(float(start.elapsed_time(end)) / 1000)
    return statistics.median(times)


def seconds_of(function: Callable[[], Any], times: int) -> float:
    """Mean time of a call, over so many without a pause."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        function()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1000 / times
