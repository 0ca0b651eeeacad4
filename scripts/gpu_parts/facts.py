"""The card, its driver, the versions, and what the card reaches."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import TYPE_CHECKING, Any

import torch

from gpu_parts.timing import seconds_each

if TYPE_CHECKING:
    from gpu_check import Report


def run(report: Report, args: Any) -> None:  # noqa: ARG001
    """Reports them."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    report.add(
        "card", subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    )
    report.add("versions", f"torch {torch.__version__}, Python {platform.python_version()}")
    for name in ("triton", "timm", "lmdb", "cv2", "google.protobuf"):
        try:
            report.add(name, __import__(name, fromlist=["x"]).__version__)
        except ImportError as error:
            report.add(name, f"missing: {error}")
    report.add("cuDNN", torch.backends.cudnn.version() or 0)
    report.add("cores", os.cpu_count() or 0)
    x = torch.empty(2**31, dtype=torch.uint8, device="cuda").random_()
    y = torch.empty_like(x)
    report.add(
        "copy", 2 * x.numel() / seconds_each(lambda: y.copy_(x)) / 1e12, "TB/s read + written"
    )
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    report.add("product in bf16", 2 * 8192**3 / seconds_each(lambda: a @ b) / 1e12, "TFLOP/s")
