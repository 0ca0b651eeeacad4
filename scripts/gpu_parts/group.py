"""The process group on a GPU: NCCL with one process, and two processes on one GPU with gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from gpu_parts.nets import ROOT

if TYPE_CHECKING:
    from gpu_check import Report

RANK = """
import sys, torch
from gpu_parts.nets import random_batch, slim
from irv2caffe.engine.fast import make_step
from irv2caffe.engine.options import EngineOptions
from irv2caffe.engine.parallel.group import open_group

backend, world = sys.argv[1], int(sys.argv[2])
group = open_group([0] * world, backend=backend)
options = EngineOptions()
net = slim(4, options, "cuda", dropout=False)
weights = net.weights.learnable
group.broadcast(weight.tensor for weight in weights)
step = make_step(net, options, group)
given = random_batch(4, "cuda")
given["data"] *= 1 + group.rank
def gradient():
    return torch.cat([w.tensor.grad.flatten() for w in weights if w.tensor.grad is not None])
step(given)
own = gradient().clone()
for weight in weights:
    if weight.tensor.grad is not None:
        weight.tensor.grad.zero_()
group.overlap(weights)
step(given)
group.average_gradients(weights)
mean = own.cpu()
torch.distributed.all_reduce(mean, group=group._control)
mean = mean.cuda() / world
print("error", float((gradient() - mean).norm() / mean.norm()))
group.close()
"""


def run(report: Report, args: Any) -> None:  # noqa: ARG001
    """Reports the error of the mean gradient against the mean of the ranks' own."""
    for backend, world in (("nccl", 1), ("gloo", 2)):
        report.add(f"{backend}, processes: {world}", ranks(backend, world), "of each")


def ranks(backend: str, world: int) -> list[str]:
    """The last line of each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = {
        "TORCHELASTIC_RUN_ID": "gpu-check",
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")]),
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, backend, str(world)],
            env={**os.environ, **base, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    outputs = [process.communicate()[0] for process in started]
    return [output.strip().splitlines()[-1] if output else "nothing" for output in outputs]
