"""Two GPUs by NCCL against one GPU with twice the iter_size: the same images, the same updates.

Caffe gives each GPU every other batch, and averages their gradients. The net has no BatchNorm,
whose statistics would be of each GPU's images.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from gpu_parts import caffe_jobs, commands
from gpu_parts.caffe_programs import fatal, open_caffe

if TYPE_CHECKING:
    from gpu_check import Report

ITERATIONS = 20  # in each training


def run(report: Report, args: Any) -> None:
    """Reports the losses of a test after the training."""
    caffe = open_caffe(args)
    count = 2 if args.cpu else _num_gpus()
    if count < 2:
        report.add("two GPUs", "left out: this machine has one")
        return
    work = report.folder()
    caffe_jobs.make_images(work / "images", 320, 48)
    (work / "net.prototxt").write_text(caffe_jobs.SMALL)
    found = []
    ways: dict[str, tuple[str, int, str]] = {
        "one GPU, iter_size 2": (caffe.gpus, 2, "true"),
        "two GPUs": ("0,1", 1, "true"),
        "two GPUs, layer_wise_reduce: false": ("0,1", 1, "false"),
    }
    for number, (name, (gpus, iter_size, by_layer)) in enumerate(ways.items()):
        solver = caffe_jobs.write_solver(
            work / f"solver{number}.prototxt",
            iter_size=iter_size,
            layer_wise_reduce=by_layer,
            max_iter=ITERATIONS,
            test_iter=20,
            test_interval=ITERATIONS,
            test_initialization="false",
            solver_mode="CPU" if args.cpu else "GPU",
        )
        log = args.out / f"gpus-{number}.log"
        device = () if args.cpu else ("-gpu", gpus)
        code = caffe.run("train", "-solver", solver.name, *device, cwd=work, log=log)
        tested = commands.tests(log).get("loss", [])
        report.add(f"{name}: test loss", tested[-1] if tested else fatal(log), code=code)
        found.append(tested[-1] if tested else None)
    if None not in found:
        first, *others = map(float, filter(None, found))
        for name, value in zip(list(ways)[1:], others, strict=True):
            report.add(f"{name}: relative difference to one", abs(value - first) / first)


def _num_gpus() -> int:
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    except OSError:
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())
