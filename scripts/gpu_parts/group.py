"""Several ranks: NCCL with one of them, and two that share a GPU, against one with both batches.

One card cannot show NCCL between two: it refuses two ranks on a card, which here exchange by gloo.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from irv2caffe.engine.fast import make_step
from irv2caffe.engine.net import Net
from irv2caffe.engine.options import EngineOptions
from irv2caffe.engine.parallel.group import SINGLE, Group, open_group, rank_environment
from irv2caffe.engine.parallel.launcher import launch
from irv2caffe.engine.weights import Weight
from irv2caffe.proto import messages
from irv2caffe.proto.text import parse_prototxt

if TYPE_CHECKING:
    from gpu_check import Report

BATCH = 64
STEPS = 10
NET = """
layer {{ name: "data" type: "Input" top: "data" top: "label" input_param {{
  shape {{ dim: {batch} dim: 3 dim: 32 dim: 32 }} shape {{ dim: {batch} }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 16 kernel_size: 3 weight_filler {{ type: "msra" }} }} }}
{batch_norm}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
"""
BATCH_NORM = 'layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }'
HAS_GPU = torch.cuda.is_available()


def run(report: Report, args: Any) -> None:  # noqa: ARG001
    """Reports differences of weights after training, the time of an average, and of an end."""
    folder = Path(tempfile.mkdtemp(prefix="gpu-check-"))
    ways = [("nccl" if HAS_GPU else "gloo", 1, "train"), ("gloo", 2, "train"), ("gloo", 2, "die")]
    with ThreadPoolExecutor() as pool:  # each is a launcher with processes of its own
        starts = [pool.submit(start, *way, folder / f"{n}") for n, way in enumerate(ways)]
        whole = {name: train(SINGLE_ON_DEVICE, name) for name in ("plain", "BatchNorm")}
        ends = [one.result() for one in starts]
    for number, (backend, num_ranks, _) in enumerate(ways[:2]):
        code, said, _ = ends[number]
        if code:
            report.add(f"{backend}, {num_ranks} ranks: failed", said[-2000:])
            continue
        found = json.loads((folder / f"{number}" / "found.json").read_text())
        for name, expected in whole.items():
            weights = torch.tensor(found[name])
            worst = (weights - expected).abs().max() / expected.abs().max()
            report.add(f"{backend}, {num_ranks} ranks, {name}: largest difference", float(worst))
        if "average" in found:
            report.add(f"{backend}: average of 55.8 million gradients", found["average"], "ms")
    code, said, seconds = ends[2]
    report.add("a rank was killed: exit code of the launcher", code, last=said[-500:])
    report.add("a rank was killed: start to end", seconds, "s")
    shutil.rmtree(folder)


def start(backend: str, num_ranks: int, task: str, out: Path) -> tuple[int, str, float]:
    """Exit code, log and seconds of a launcher."""
    out.mkdir(parents=True, exist_ok=True)
    words = (str(num_ranks), backend, task, str(out))
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "gpu_parts.group", *words],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr, time.monotonic() - begin


SINGLE_ON_DEVICE = Group(torch.device("cuda", 0)) if HAS_GPU else SINGLE


def train(group: Group, name: str) -> torch.Tensor:
    """All weights after a few steps; ranks share each batch."""
    text = NET.format(
        batch=BATCH // group.world, batch_norm=BATCH_NORM if name == "BatchNorm" else ""
    )
    options = EngineOptions(sync_bn=name == "BatchNorm")
    torch.manual_seed(group.rank)
    proto = parse_prototxt(text, messages.NetParameter)
    net = Net(proto, "TRAIN", options, device=group.device)
    weights = net.weights.learnable
    step = make_step(net, options, group)
    group.broadcast(weight.tensor for weight in weights)
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        data = torch.rand(BATCH, 3, 32, 32, generator=generator)
        label = torch.randint(0, 10, (BATCH,), generator=generator).float()
        given = {"data": data[group.rank :: group.world], "label": label[group.rank :: group.world]}
        for weight in weights:
            if weight.tensor.grad is not None:
                weight.tensor.grad.zero_()
        if step.runs_hooks:
            group.overlap(weights)
        step({key: value.to(group.device) for key, value in given.items()})
        group.average_gradients(weights)
        with torch.no_grad():
            for weight in weights:
                if weight.tensor.grad is not None:
                    weight.tensor.sub_(weight.tensor.grad, alpha=0.02)
    return torch.cat([weight.tensor.detach().flatten().cpu() for weight in weights])


def average_ms(group: Group) -> float:
    """Time of the average of as many gradients as slim has."""
    tensors = [torch.zeros(116_341, device=group.device, requires_grad=True) for _ in range(480)]
    weights = [Weight(tensor, 1.0, 1.0, "", 0) for tensor in tensors]
    for _ in range(3):
        group.average_gradients(weights)
    torch.cuda.synchronize()
    begin = time.monotonic()
    for _ in range(20):
        group.average_gradients(weights)
    torch.cuda.synchronize()
    return (time.monotonic() - begin) / 20 * 1000


def rank(num_ranks: int, backend: str, task: str, out: Path) -> None:
    """One rank."""
    group = open_group([0] * num_ranks if HAS_GPU else (), backend=backend, timeout_s=60)
    found: dict[str, Any] = {
        name: train(group, name).tolist()
        for name in ("plain", "BatchNorm")[: 1 if task == "die" else 2]
    }
    if task == "die":
        if not group.is_root:
            os.kill(os.getpid(), signal.SIGKILL)
        group.barrier()
    if HAS_GPU and num_ranks == 1:
        found["average"] = average_ms(group)
    if group.is_root:
        (out / "found.json").write_text(json.dumps(found))
    group.close()


def main(num_ranks: str, backend: str, task: str, out: str) -> int:
    """A rank or its launcher."""
    if rank_environment() is not None:
        rank(int(num_ranks), backend, task, Path(out))
        return 0
    command = [sys.executable, "-m", "gpu_parts.group", *sys.argv[1:]]
    return launch(command, int(num_ranks), fatal=lambda text: print("F", text, file=sys.stderr))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
