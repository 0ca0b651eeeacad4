"""What the installed PyTorch can do, as JSON for the planner of a training."""

from __future__ import annotations

from typing import Any

import torch


def devices() -> dict[str, Any]:
    """Describes PyTorch and the GPUs that it can use.

    Returns:
        ``torch`` and ``cuda``, versions, the latter None for a CPU build; ``nccl``, whether several
        GPUs can train together; ``problem``, why a CUDA build sees no GPU; ``gpus``, each with
        ``index``, ``name``, ``memory_bytes``, ``capability`` such as ``9.0`` and ``supported``,
        whether this build has code for it; ``layer_types`` that the engine runs.
    """
    from irv2caffe.engine.layer import LAYERS
    from irv2caffe.engine.net import SOURCES

    problem, gpus = "", []
    if torch.version.cuda is not None:
        try:
            gpus = [_gpu(index) for index in range(torch.cuda.device_count())]
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            problem, gpus = str(error).strip().split("\n", 1)[0], []
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "nccl": torch.distributed.is_available() and torch.distributed.is_nccl_available(),
        "problem": problem,
        "gpus": gpus,
        "layer_types": sorted({*LAYERS, *SOURCES}),
    }


def _gpu(index: int) -> dict[str, Any]:
    found = torch.cuda.get_device_properties(index)
    return {
        "index": index,
        "name": found.name,
        "memory_bytes": found.total_memory,
        "capability": f"{found.major}.{found.minor}",
        "supported": _is_supported(found.major, found.minor),
    }


def _is_supported(major: int, minor: int) -> bool:
    """Binary code runs on later minors of its major capability, PTX on all later ones."""
    for name in torch.cuda.get_arch_list():
        kind, _, digits = name.partition("_")
        number = int("".join(filter(str.isdigit, digits)) or 0)
        if kind == "sm" and number // 10 == major and number % 10 <= minor:
            return True
        if kind == "compute" and number <= 10 * major + minor:
            return True
    return False
