"""Training images a second of slim in real Caffe, with and without cuDNN, and in the torch engine.

The databases hold raw images of 328 pixels, so that reading them is part of each. All train in
float (the torch engine: ``--precision fp32``) with the same batch size, one after the other.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

from gpu_parts import caffe_jobs, commands
from gpu_parts.caffe_programs import Caffe, PeakMemory, fatal, median, open_caffe, rates

if TYPE_CHECKING:
    from pathlib import Path

    from gpu_check import Report

DISPLAY = 5


def run(report: Report, args: Any) -> None:
    """Reports them for each batch size."""
    caffe = open_caffe(args)
    work = report.folder()
    caffe_jobs.make_images(work / "images", 64, 328, num_classes=64)
    for batch in map(int, args.caffe_batches.split(",")):
        if caffe.cudnn:
            _caffe(report, caffe, work, args, batch, "Caffe with cuDNN", own_layers=False)
        _caffe(report, caffe, work, args, batch, "Caffe without cuDNN", own_layers=caffe.cudnn)
        if not args.cpu:
            _torch(report, work, args, batch)


def _job(work: Path, args: Any, batch: int, *, own_layers: bool) -> None:
    """Writes net and solver; on the CPU, where this is tried, they are small and few."""
    small = ("--crop", 75, "--width", 0.1) if args.cpu else ()
    data = ("--train-lmdb", "images", "--val-lmdb", "images", "--num-classes", 1000)
    words = ("--variant", "slim", "--batch-size", batch, *data, *small)
    commands.irv2caffe("build-net", "--out", "slim", "--force", *words, cwd=work)
    if own_layers:
        caffe_jobs.take_own_layers(work / "slim/train_val.prototxt")
    caffe_jobs.write_solver(
        work / "solver.prototxt",
        net='"slim/train_val.prototxt"',
        type='"RMSProp"',
        momentum=0,
        rms_decay=0.9,
        delta=1,
        base_lr=0.001,
        display=1 if args.cpu else DISPLAY,
        max_iter=4 if args.cpu else 6 * DISPLAY,
        solver_mode="CPU" if args.cpu else "GPU",
    )


def _caffe(
    report: Report,
    caffe: Caffe,
    work: Path,
    args: Any,
    batch: int,
    name: str,
    *,
    own_layers: bool,
) -> None:
    _job(work, args, batch, own_layers=own_layers)
    log = args.out / f"slim-{batch}-{name.replace(' ', '-')}.log"
    with PeakMemory() as memory:
        code = caffe.run("train", "-solver", "solver.prototxt", *caffe.device, cwd=work, log=log)
    _report(report, f"slim, batch {batch}, {name}", log, batch, code, memory.peak_mib)


def _torch(report: Report, work: Path, args: Any, batch: int) -> None:
    _job(work, args, batch, own_layers=False)
    log = args.out / f"slim-{batch}-torch.log"
    words = ["train", "-solver", "solver.prototxt", "-gpu", "0", "--precision", "fp32"]
    with PeakMemory() as memory, log.open("w") as file:
        code = subprocess.run(
            [sys.executable, "-m", "irv2caffe.engine", *words], cwd=work, stderr=file, check=False
        ).returncode
    _report(report, f"slim, batch {batch}, torch engine", log, batch, code, memory.peak_mib)


def _report(
    report: Report, name: str, log: Path, batch: int, code: int | str, peak_mib: int
) -> None:
    found = rates(log, batch)
    if code:
        report.add(f"{name}: failed", fatal(log), code=code)
    if found:
        value = round(median(found), 1)
        report.add(name, value, "images/s", n=len(found), least=min(found), most=max(found))
    if peak_mib:
        report.add(f"{name}: peak memory of the card", peak_mib, "MiB")
