"""Where the time of a step goes: its kernels; and 1x1 convolutions beside matrix products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from gpu_parts.speed import ours
from gpu_parts.timing import seconds_each

if TYPE_CHECKING:
    from gpu_check import Report

SHAPES = (
    (320, 96, 35),
    (128, 320, 35),
    (1088, 320, 17),
    (384, 1088, 17),
    (2080, 384, 8),
    (448, 2080, 8),
)
BATCH = 128


def run(report: Report, args: Any) -> None:
    """Reports them; the full table of kernels goes to a file."""
    for shape in SHAPES:
        report.add(f"1x1 {shape}: convolution, product", pointwise(*shape), "ms forward + backward")
    step = ours(BATCH, translate=False)
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(2):
            step()
        torch.cuda.synchronize()
    table = profile.key_averages().table(
        sort_by="cuda_time_total", row_limit=150, max_name_column_width=110
    )
    (args.out / "kernels.txt").write_text(table)


def pointwise(channels: int, width: int, size: int) -> list[float]:
    """Times of both ways."""
    last = torch.channels_last
    x = torch.randn(BATCH, channels, size, size, device="cuda", dtype=torch.bfloat16)
    x = x.contiguous(memory_format=last).requires_grad_()
    w = torch.randn(width, channels, 1, 1, device="cuda", dtype=torch.bfloat16).requires_grad_()
    top = torch.randn(BATCH, width, size, size, device="cuda", dtype=torch.bfloat16)
    top = top.contiguous(memory_format=last)

    def convolution() -> None:
        torch.autograd.grad(functional.conv2d(x, w), (x, w), top)

    def product() -> None:
        y = functional.linear(x.permute(0, 2, 3, 1), w.flatten(1)).permute(0, 3, 1, 2)
        torch.autograd.grad(y, (x, w), top)

    torch.backends.cudnn.benchmark = True
    return [round(1000 * seconds_each(function), 3) for function in (convolution, product)]
