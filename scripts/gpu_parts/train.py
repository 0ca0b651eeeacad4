"""The demo's job: Fashion-MNIST at 82 pixels with a narrow paper net, four epochs.

Reads DATA/fashion: the four IDX files of Fashion-MNIST, of which 6,000 and 1,000 images are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpu_parts import commands
from gpu_parts.fashion import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from gpu_check import Report


def run(report: Report, args: Any) -> None:
    """Trains in each precision, then resumes the last one from its first snapshot."""
    work = report.folder()
    prepare(work, args.data / "fashion")
    for flags in (("--exact",), ("--precision", "bf16")):
        _train(report, args, work, flags)


def _train(report: Report, args: Any, work: Path, flags: tuple[str, ...]) -> None:
    name = flags[-1].lstrip("-")
    solver = work / f"{name}.prototxt"
    text = (work / "net/solver.prototxt").read_text()
    solver.write_text(text.replace("net/irv2_paper", f"{name}/demo"))
    (work / name).mkdir()
    given = ("-solver", solver.name, "-gpu", 0, *flags)
    log = args.out / f"demo-{name}.log"
    seconds = commands.engine(*given, cwd=work, log=log)
    report.add(f"demo, {name}: time", seconds, "s")
    _report(report, f"demo, {name}", log)
    state = sorted((work / name).glob("*.solverstate"), key=lambda path: path.stat().st_mtime)[-2]
    again = args.out / f"demo-{name}-resumed.log"
    commands.engine(*given, "-snapshot", f"{name}/{state.name}", cwd=work, log=again)
    _report(report, f"demo, {name}, resumed from {state.name}", again)


def _report(report: Report, name: str, log: Path) -> None:
    for output, values in commands.tests(log).items():
        if "top1" in output:
            errors = [round(100 - 100 * value, 1) for value in values]
            report.add(f"{name}: top-1 errors", errors, "%")
