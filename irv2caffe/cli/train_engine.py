"""train: the engine that was asked for, from the options of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from irv2caffe.train.plan.select_engine import EngineRequest

AUTO = "auto"


def engine_request(more: dict[str, Any], gpus: str | None, recipe: str | None) -> EngineRequest:
    """The engine and its options.

    Args:
        more: options of the command; those of the engine are taken out.
        gpus: the value of ``--gpus``, or None.
        recipe: the value of ``--recipe``, which takes --label-smoothing for itself.

    Raises:
        UsageError: options that exclude each other.
    """
    from irv2caffe.train.engines.torch_options import TORCH_OPTIONS, TorchOptions
    from irv2caffe.train.plan.select_engine import EngineRequest

    smoothing = more["label_smoothing"]
    given = {name: more.pop(name) for name in TORCH_OPTIONS}
    if recipe is not None:
        more["label_smoothing"] = given.pop("label_smoothing")
    elif smoothing is None:
        given["label_smoothing"] = 0.0
    given["data_threads"] = given["data_threads"] or 0
    given["rdzv_endpoint"] = given["rdzv_endpoint"] or ""
    torch = TorchOptions(**given)
    _refuse_contradictions(torch, gpus)
    if torch.workers > 1 and gpus is None:
        gpus = "none"
    name, caffe, docker = (more.pop(key) for key in ("engine", "caffe", "docker"))
    return EngineRequest(name, gpus or AUTO, caffe, docker, torch)


def _refuse_contradictions(torch: Any, gpus: str | None) -> None:
    if torch.workers > 1 and gpus not in {None, "none"}:
        raise UsageError(
            f"--workers {torch.workers} are processes on the CPU, and --gpus {gpus} asks for GPUs",
            "each GPU has a process of its own; leave --workers out, or give --gpus none",
        )
    if torch.exact and torch.precision != "fp32":
        raise UsageError(
            f"--exact and --precision {torch.precision} exclude each other", "leave one of them out"
        )
    if (torch.nnodes > 1) != bool(torch.rdzv_endpoint):
        raise UsageError(
            "--nnodes and --rdzv-endpoint belong together",
            "--nnodes 2 --rdzv-endpoint HOST:PORT, the same on both machines",
        )
    if torch.nnodes > 1 and torch.node_rank is None:
        raise UsageError(
            "--nnodes needs --node-rank, the number of this machine",
            "0 on the machine of --rdzv-endpoint, which writes the snapshots; 1 on the next one",
        )
    if (torch.node_rank or 0) >= torch.nnodes:
        raise UsageError(
            f"--node-rank {torch.node_rank}: there are {torch.nnodes} machines, from 0"
        )
