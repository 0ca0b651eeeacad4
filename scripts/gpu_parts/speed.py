"""Training images a second of slim beside timm's inception_resnet_v2, in turns.

Each candidate is a process of its own that sets itself up beside the other one, and then
trains a few iterations when it is told to.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
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
LONGEST_WAIT_S = 60.0
IMAGES = 1_281_167
PAIRS = (("irv2caffe", "timm"), ("irv2caffe compiled", "timm compiled"))


@dataclass
class Candidate:
    """A process that trains when it is told to.

    Attributes:
        process: of ``python gpu_check.py --candidate NAME``.
        rates: images per second of each round.
    """

    process: subprocess.Popen[str]
    rates: list[float]

    def answer(self) -> Any:
        """The next line it says; None when it has failed."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        return None

    def train(self) -> bool:
        """A round; False when the process has failed."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        found = self.answer()
        if found is not None:
            self.rates.append(found["rate"])
        return found is not None


def run(report: Report, args: Any) -> None:
    """Reports them for each batch size."""
    if args.candidate:
        be_candidate(args.candidate, int(args.batches))
        return
    for batch in args.batches.split(","):
        for pair in PAIRS:
            after = args.after if pair == PAIRS[-1] else None
            measure(report, batch, {name: start(name, batch, args.out) for name in pair}, after)


def start(name: str, batch: str, out: Path) -> Candidate:
    """Starts a candidate."""
    words = ["--part", "speed", "--batches", batch, "--candidate", name, "--out", str(out)]
    command = [sys.executable, str(Path(__file__).parent.parent / "gpu_check.py"), *words]
    errors = (out / f"{name.replace(' ', '-')}-{batch}.err").open("w")
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True)
    return Candidate(process, [])


def measure(
    report: Report, batch: str, pair: dict[str, Candidate], after: Path | None = None
) -> None:
    """Waits until both are ready, then lets them train in turns; ends them."""
    for name, candidate in list(pair.items()):
        ready = candidate.answer()
        if ready is None:
            report.add(f"batch {batch}, {name}", "failed; its .err file says why")
            del pair[name]
            continue
        report.add(f"batch {batch}, {name}: first iteration", ready["first_s"], "s")
        report.add(f"batch {batch}, {name}: peak memory", ready["peak_gb"], "GB")
    waited_s = 0.0
    while after is not None and not after.exists() and waited_s < LONGEST_WAIT_S:
        time.sleep(0.2)
        waited_s += 0.2
    report.add(f"batch {batch}, waited until the GPU was free", waited_s, "s")
    for number in range(ROUNDS):
        for name, candidate in pair.items():
            if candidate.train():
                rate = candidate.rates[-1]
                report.add(f"batch {batch}, {name}: round {number}", rate, "images/s")
    for name, candidate in pair.items():
        candidate.process.kill()
        candidate.process.wait()
        if candidate.rates:
            _summary(report, f"batch {batch}, {name}", candidate.rates)
    rates = [statistics.median(each.rates) for each in pair.values() if each.rates]
    if len(rates) == 2:
        report.add(f"batch {batch}: {' / '.join(pair)}", rates[0] / rates[1])


def _summary(report: Report, name: str, rates: list[float]) -> None:
    rate = statistics.median(rates)
    report.add(f"{name}: median of {len(rates)}", rate, "images/s")
    report.add(f"{name}: rate of its products", 6 * MACS * rate / 1e12, "TFLOP/s")
    report.add(f"{name}: 120 epochs of ILSVRC12", 120 * IMAGES / rate / 86400, "days")


def be_candidate(name: str, batch: int) -> None:
    """Sets up, says so, and trains a round for each line that it reads."""
    start_s = time.perf_counter()
    program, _, compiled = name.partition(" ")
    step = (ours if program == "irv2caffe" else timms)(batch, translate=bool(compiled))
    step()
    torch.cuda.synchronize()
    first_s = time.perf_counter() - start_s
    for _ in range(4):
        step()
    torch.cuda.synchronize()
    _say({"first_s": first_s, "peak_gb": torch.cuda.max_memory_allocated() / 1e9})
    for _ in sys.stdin:
        step()
        _say({"rate": batch / seconds_of(step, STEPS)})


def _say(answer: dict[str, float]) -> None:
    print(json.dumps(answer), flush=True)


def ours(batch: int, *, translate: bool) -> Callable[[], Any]:
    """The engine's step, with an RMSProp of torch."""
    options = EngineOptions(exact=False, precision="bf16")
    net = slim(batch, options, "cuda")
    modes = Modes(translate="repeated" if translate else "", record=True, bf16=True)
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
    """The model of timm as it is used: autocast, channels_last, its repeated blocks compiled."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model("inception_resnet_v2", num_classes=1000, drop_rate=0.2)
    model = model.cuda().to(memory_format=torch.channels_last).train()
    if translate:
        config: Any = import_module("torch._dynamo.config")
        config.recompile_limit = 1024
        config.accumulated_recompile_limit = 4096
        for child in model.children():
            for block in child if isinstance(child, torch.nn.Sequential) else ():
                block.compile(dynamic=False)
    torch.backends.cudnn.benchmark = True
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
