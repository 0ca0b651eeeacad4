"""Real Caffe on the GPU: device_query, Caffe's own tests, losses beside those of the CPU."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from gpu_parts import caffe_jobs, commands
from gpu_parts.caffe_programs import TESTS, Caffe, fatal, open_caffe

if TYPE_CHECKING:
    from pathlib import Path

    from gpu_check import Report

# Tests of two types, on the CPU (0, 1) and on the GPU (2, 3); the others are of one device.
ON_GPU = "*/2.*:*/3.*:GPUMath*:Im2colKernel*:CuDNN*"
ON_CPU = "CPUMath*:ConvolutionLayerTest/0*:SGDSolverTest/0*:RMSPropSolverTest/1*:AdamSolverTest/0*"
QUERY = re.compile(r"(Name|Major revision number|Minor revision number): +(.*)")
ITERATIONS = 20
NET = ("--variant", "paper", "--crop", 75, "--width", 0.25, "--batch-size", 16, "--dropout", 0)


def run(report: Report, args: Any) -> None:
    """Reports them, each step with its log in the folder of the results."""
    caffe = open_caffe(args)
    report.add("Caffe", str(caffe.found.root))
    query(report, caffe, args.out)
    unit_tests(report, caffe, args.out)
    losses(report, caffe, args.out, 1 if args.cpu else ITERATIONS)


def query(report: Report, caffe: Caffe, out: Path) -> None:
    """What Caffe says of the GPUs."""
    log = out / "device_query.log"
    code = caffe.run("device_query", "-gpu", "all", cwd=out, log=log)
    said = dict(QUERY.findall(log.read_text(errors="replace")))
    report.add("device_query", " ".join(said.values()) if code == 0 else fatal(log), code=code)


def unit_tests(report: Report, caffe: Caffe, out: Path) -> None:
    """Caffe's own tests, if the bundle has them, in as many processes as there are cores."""
    if not (caffe.found.tools / TESTS).is_file():
        report.add("unit tests", "left out: this Caffe has none; a bundle has")
        return
    shards = max(1, (os.cpu_count() or 1) - 2)
    pattern = ON_GPU if caffe.gpus else ON_CPU

    def shard(number: int) -> tuple[int | str, str]:
        log = out / f"tests-{number}.log"
        env = {"GTEST_TOTAL_SHARDS": str(shards), "GTEST_SHARD_INDEX": str(number)}
        words = (f"--gtest_filter={pattern}", "--gtest_color=no")
        more = {"tool": TESTS, "OPENBLAS_NUM_THREADS": "1", **env}
        code = caffe.run(*words, cwd=caffe.found.root, log=log, **more)
        text = log.read_text(errors="replace")
        log.unlink()
        return code, text

    with ThreadPoolExecutor(shards) as pool:
        done = list(pool.map(shard, range(shards)))
    text = "".join(said for _, said in done)
    (out / "unit-tests.log").write_text(text)
    failed = sorted(set(re.findall(r"\[  FAILED  \] (\S+)(?:,| \()", text)))
    report.add("unit tests passed", len(re.findall(r"\[       OK \]", text)))
    report.add("unit tests failed", failed or 0)
    report.add(
        "unit tests, processes that ended badly", sum(code not in {0, 1} for code, _ in done)
    )


def losses(report: Report, caffe: Caffe, out: Path, iterations: int) -> None:
    """A narrow net from the same weights on the GPU and the CPU; the images are made up."""
    work = report.folder() / "losses"
    work.mkdir()
    caffe_jobs.make_images(work / "images", 256, 82)
    data = ("--train-lmdb", "images", "--val-lmdb", "images")
    commands.irv2caffe("build-net", "--out", "net", *data, *NET, cwd=work)
    solver = {
        "net": '"net/train_val.prototxt"',
        "type": '"RMSProp"',
        "momentum": 0,
        "rms_decay": 0.9,
        "delta": 1,
        "base_lr": 0.002,
    }
    start = caffe_jobs.write_solver(
        work / "start.prototxt",
        **{**solver, "max_iter": 0, "snapshot_prefix": '"start"', "snapshot_after_train": "true"},
        solver_mode="CPU",
    )
    log = out / "losses-start.log"
    if caffe.run("train", "-solver", start.name, cwd=work, log=log):
        report.add("losses", f"failed: {fatal(log)}")
        return
    found = []
    for name, mode, device in (("GPU", "GPU", caffe.device), ("CPU", "CPU", ())):
        one = caffe_jobs.write_solver(
            work / f"{name}.prototxt",
            **{**solver, "max_iter": iterations},
            solver_mode=mode if device else "CPU",
        )
        words = ("train", "-solver", one.name, "-weights", "start_iter_0.caffemodel", *device)
        log = out / f"losses-{name.lower()}.log"
        code = caffe.run(*words, cwd=work, log=log)
        values = list(commands.losses(log).values())
        report.add(f"losses, {name}", values or fatal(log), code=code)
        found.append(values)
    pairs = [abs(a - b) / abs(b) for a, b in zip(*found, strict=False) if b]
    if pairs:
        report.add("losses: relative difference of the first", pairs[0])
        report.add("losses: largest of the first five", max(pairs[:5]))
