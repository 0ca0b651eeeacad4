"""Gathers the evidence about a run from a run folder, a log or a published curve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.check.nets import gather as gather_check
from irv2caffe.check.read import read
from irv2caffe.check.run import CheckOptions, check_reading
from irv2caffe.diagnose.evidence import RunEvidence
from irv2caffe.log.dataset import find_train_images
from irv2caffe.log.metrics import RunData
from irv2caffe.log.read.reader import read_log, require_caffe_log
from irv2caffe.log.reference import NAMES
from irv2caffe.log.table import make_table
from irv2caffe.train.run_dir.run_dir import read_config

if TYPE_CHECKING:
    from irv2caffe.check.evidence import Evidence
    from irv2caffe.check.finding import Finding


@dataclass(frozen=True)
class Request:
    """What to diagnose.

    Attributes:
        source: a run folder, a log, or the name of a published curve.
        solver: the solver of the run; None takes that of the run folder.
        num_train_images: overrides the number that is found.
    """

    source: Path
    solver: Path | None = None
    num_train_images: int | None = None


def gather(request: Request) -> RunEvidence:
    """Reads a run.

    Raises:
        MissingInputError: a file is missing.
        FormatError: the log has no line of a training, or a prototxt is invalid.
    """
    source = request.source
    log = read_log(source)
    require_caffe_log(log, source)
    is_run = source.is_dir()
    folder = source if is_run else source.parent
    images = request.num_train_images or find_train_images(log, folder).number
    table = make_table(log, num_train_images=images)
    solver = request.solver
    if solver is None and is_run and (source / "solver.prototxt").is_file():
        solver = source / "solver.prototxt"
    checked, findings = _checked(solver)
    return RunEvidence(
        name=str(source),
        run=RunData(table),
        log=log,
        check=checked,
        check_findings=findings,
        run_dir=source if is_run else None,
        config=_config(source) if is_run else {},
    )


def _config(folder: Path) -> dict[str, Any]:
    return read_config(folder)


def _checked(solver: Path | None) -> tuple[Evidence | None, tuple[Finding, ...]]:
    if solver is None:
        return None, ()
    reading = read(solver)
    report = check_reading(reading, CheckOptions())
    return gather_check(reading, report.databases), report.findings


def is_reference(name: str) -> bool:
    """Whether a name is that of a published curve."""
    return name in NAMES and not Path(name).exists()
