"""Training images a second of slim beside timm's inception_resnet_v2, in turns."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from gpu_parts.nets import MACS, random_batch, slim
from gpu_parts.timing import seconds_of
from irv2caffe.engine.fast import Modes, make_step
from irv2caffe.engine.options import EngineOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpu_check import Report

ROUNDS = 5
STEPS = 8  # in each round
IMAGES = 1_281_167


@dataclass
class Candidate:
    """A program to measure.

    Attributes:
        step: one training iteration with its update.
        first_s: time until the first iteration was over.
        peak_gb: largest memory of the GPU beyond what was taken before.
    """

    step: Callable[[], Any]
    first_s: float
    peak_gb: float


def run(report: Report, args: Any) -> None:
    """Reports them for each batch size."""
    product = peak_flops()
    for batch in map(int, args.batches.split(",")):
        try:
            measure(report, batch, product)
        except torch.OutOfMemoryError as error:
            report.add(f"batch {batch}", f"does not fit: {str(error)[:80]}")
        torch.cuda.empty_cache()


def peak_flops() -> float:
    """The rate of a large product in bf16."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds_of(lambda: a @ b, 5)
    return 2 * 8192**3 / seconds_of(lambda: a @ b, 20)


def measure(report: Report, batch: int, product: float) -> None:
    """One batch size."""
    made: dict[str, Candidate] = {}
    candidates = {
        "irv2caffe": lambda: ours(batch),
        "irv2caffe, not compiled": lambda: ours(batch, Modes(record=True, bf16=True)),
        "timm": lambda: timms(batch, translate=True),
    }
    for name, make in candidates.items():
        try:
            made[name] = prepared(make)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 the others are still worth their time
            report.add(f"batch {batch}, {name}", f"left out: {str(error)[:1500]}")
            continue
        _report_first(report, batch, name, made[name])
        report.add(
            f"batch {batch}, {name}, first round", batch / seconds_of(made[name].step, STEPS)
        )
    rates: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(ROUNDS):
        _round(batch, made, rates)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        spread = [min(rates[name]), max(rates[name])]
        report.add(f"batch {batch}, {name}", rate, "images/s", spread=spread, n=ROUNDS)
        report.add(f"batch {batch}, {name}: share of the product", 6 * MACS * rate / product)
    if "irv2caffe" not in medians:
        return
    report.add(
        f"batch {batch}: 120 epochs of ILSVRC12",
        120 * IMAGES / medians["irv2caffe"] / 86400,
        "days",
    )
    for name in set(medians) - {"irv2caffe"}:
        report.add(f"batch {batch}: irv2caffe / {name}", medians["irv2caffe"] / medians[name])


def _round(batch: int, made: dict[str, Candidate], rates: dict[str, list[float]]) -> None:
    for name, candidate in made.items():
        rates[name].append(batch / seconds_of(candidate.step, STEPS))


def _report_first(report: Report, batch: int, name: str, candidate: Candidate) -> None:
    report.add(f"batch {batch}, {name}: first iteration", candidate.first_s, "s")
    report.add(f"batch {batch}, {name}: peak memory", candidate.peak_gb, "GB")


def prepared(make: Callable[[], Callable[[], Any]]) -> Candidate:
    """Sets a candidate up, measuring its first iteration and its memory."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    step = make()
    step()
    torch.cuda.synchronize()
    first_s = time.perf_counter() - start
    for _ in range(4):
        step()
    torch.cuda.synchronize()
    return Candidate(step, first_s, (torch.cuda.max_memory_allocated() - before) / 1e9)


def ours(batch: int, modes: Modes | None = None) -> Callable[[], Any]:
    """The engine's step, with an RMSProp of torch."""
    options = EngineOptions(exact=False, precision="bf16")
    net = slim(batch, options, "cuda")
    step = make_step(net, options, modes=modes)
    learned = [w.tensor for w in net.weights.learnable if w.tensor.requires_grad]
    update = torch.optim.RMSprop(learned, lr=1e-4, alpha=0.9, eps=1.0, foreach=True)
    given = random_batch(batch, "cuda")

    def train() -> None:
        step(given)
        update.step()
        update.zero_grad(set_to_none=True)

    return train


def timms(batch: int, *, translate: bool) -> Callable[[], Any]:
    """The model of timm as its own training script runs it: autocast, compiled blocks."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model("inception_resnet_v2", num_classes=1000, drop_rate=0.2)
    model = model.cuda().to(memory_format=torch.channels_last).train()
    if translate:
        config: Any = import_module("torch._dynamo.config")
        config.recompile_limit = 1024
        config.accumulated_recompile_limit = 4096
        for child in model.children():
            parts = child if isinstance(child, torch.nn.Sequential) else [child]
            for part in parts:
                part.compile(dynamic=False)
    update = torch.optim.RMSprop(model.parameters(), lr=1e-4, alpha=0.9, eps=1.0, foreach=True)
    given = random_batch(batch, "cuda")
    data = given["data"].to(memory_format=torch.channels_last)
    label = given["label"].long()

    def train() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            scores = model(data)
        loss = torch.nn.functional.cross_entropy(scores.float(), label)
        loss.backward()
        update.step()
        update.zero_grad(set_to_none=True)

    return train
