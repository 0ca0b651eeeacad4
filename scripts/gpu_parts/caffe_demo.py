"""The demo's job in real Caffe on the GPU: Fashion-MNIST at 82 pixels, four epochs, resumed.

Reads what the part ``train`` reads, and trains the same nets.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gpu_parts import commands
from gpu_parts.caffe_programs import Caffe, fatal, open_caffe
from gpu_parts.fashion import prepare
from irv2caffe.proto import messages
from irv2caffe.proto.text import parse_prototxt, write_prototxt

if TYPE_CHECKING:
    from pathlib import Path

    from gpu_check import Report


def run(report: Report, args: Any) -> None:
    """Trains, then resumes from the snapshot before the last one."""
    caffe = open_caffe(args)
    work = report.folder()
    if not (args.data / "fashion").is_dir():
        report.add("demo", f"left out: no {args.data / 'fashion'}")
        return
    prepare(work, args.data / "fashion", few=args.cpu)
    solver = parse_prototxt((work / "net/solver.prototxt").read_text(), messages.SolverParameter)
    solver.solver_mode = solver.GPU if caffe.gpus else solver.CPU
    write_prototxt(work / "solver.prototxt", solver)
    _train(report, caffe, work, args.out / "caffe-demo.log", "demo")
    states = sorted((work / "net").glob("*.solverstate"), key=lambda path: path.stat().st_mtime)
    if len(states) > 1:
        more = ("-snapshot", f"net/{states[-2].name}")
        log = args.out / "caffe-demo-resumed.log"
        _train(report, caffe, work, log, f"demo, resumed from {states[-2].name}", *more)


def _train(report: Report, caffe: Caffe, work: Path, log: Path, name: str, *more: str) -> None:
    start = time.monotonic()
    words = ("train", "-solver", "solver.prototxt", *caffe.device, *more)
    code = caffe.run(*words, cwd=work, log=log)
    report.add(f"{name}: time", time.monotonic() - start, "s")
    if code:
        report.add(f"{name}: failed", fatal(log), code=code)
    for output, values in commands.tests(log).items():
        if "top1" in output:
            errors = [round(100 - 100 * value, 1) for value in values]
            report.add(f"{name}: top-1 errors", errors, "%")
