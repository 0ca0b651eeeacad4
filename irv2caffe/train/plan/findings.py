"""Findings of ``irv2caffe check`` on the job as it will run, and which of them are errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.check.finding import Severity
from irv2caffe.check.registry import RULES
from irv2caffe.check.run import CheckOptions, check_reading
from irv2caffe.errors import InputError

if TYPE_CHECKING:
    from irv2caffe.check.finding import Finding
    from irv2caffe.data.inspect.database import Databases
    from irv2caffe.train.plan.plan import Plan

# The only rules of check that a training leaves out, and why.
LEFT_OUT = {
    "snapshot-folder": "snapshots go into the run folder",
    "snapshot-prefix": "snapshots go into the run folder",
    "snapshot-taken": "snapshots go into the run folder",
    "snapshot-never": "the trainer asks for snapshots, and for one at the end",
    "solver-mode": "the run's copy of the solver has the mode that --gpus means",
    "display": "the run's copy of the solver has one",
    "net-elsewhere": "the run's copies have absolute paths",
    "net-missing": "an error of the plan",
    "solver-as-net": "an error of the plan",
    "effective-batch": "a row of the plan",
}
# What stops Caffe at its start: an error also with --ignore-findings. A database that is not there
# is a note of check, which may run on another machine than the training.
STOPS = frozenset(("data-missing", "data-unreadable", "data-empty", "backend-unset", "max-iter"))
# The rules for a run that is resumed, which has passed the others; its databases may have changed.
_OF_RECORDS = frozenset(
    ("crop-exceeds-records", "label-range", "records-broken", "records-differ", "height-first")
)


def job_findings(plan: Plan, databases: Databases) -> tuple[Finding, ...]:
    """The findings on a job with the values that options have changed.

    Of a run that is resumed only those on its databases are looked for.

    Args:
        plan: without findings.
        databases: that were read already.

    Raises:
        Irv2CaffeError: a database or model that the options name cannot be read.
    """
    given, start = plan.options.given, plan.options.snapshot
    rules = _OF_RECORDS | STOPS if plan.options.moved else RULES.keys() - LEFT_OUT.keys()
    models = [*plan.options.weights]
    if start is not None and start.model.suffix == ".caffemodel":  # not HDF5
        models.append(start.model)
    options = CheckOptions(
        flavor="nvcaffe" if plan.flavor == "nvcaffe" else "bvlc",
        num_gpus=plan.devices.count,
        weights=next(filter(Path.is_file, models), None),
        train_lmdb=Path(given["train_lmdb"]) if "train_lmdb" in given else None,
        val_lmdb=Path(given["val_lmdb"]) if "val_lmdb" in given else None,
        epochs=given.get("epochs"),
        lr_decay_epochs=given.get("lr_decay_epochs"),
        ignore=frozenset(RULES) - rules,
        databases=databases,
    )
    found = check_reading(plan.job.as_written(), options).findings
    return tuple(map(_without_folder, found)) if plan.options.origin else found


def _without_folder(finding: Finding) -> Finding:
    """The finding in the files of a recipe, whose folder is gone then."""
    places = (replace(place, file=Path(place.file).name) for place in finding.places)
    return replace(finding, places=tuple(places))


def line(finding: Finding) -> str:
    """A finding in one line."""
    where = ""
    if finding.places:
        more = f" and {len(finding.places) - 1} more" if len(finding.places) > 1 else ""
        where = f" at {finding.places[0]}{more}"
    return f"{finding.severity.label}: {finding.what}{where} [{finding.rule}]"


def problem(finding: Finding) -> InputError:
    """A finding as an error that prevents the start."""
    anyway = "" if finding.rule in STOPS else "; --ignore-findings starts all the same"
    return InputError(
        line(finding).removeprefix(f"{finding.severity.label}: "), f"{finding.fix}{anyway}"
    )


def stops(finding: Finding) -> bool:
    """Whether Caffe would stop at its start."""
    return finding.rule == "data-missing" or (finding.rule in STOPS and is_error(finding))


def is_error(finding: Finding) -> bool:
    """Whether a finding stops Caffe or makes the run worthless."""
    return finding.severity is Severity.ERROR


def lines(plan: Plan) -> list[str]:
    """Errors that were ignored, warnings, and how many notes there are."""
    serious = [finding for finding in plan.findings if finding.severity is not Severity.NOTE]
    num_notes = len(plan.findings) - len(serious)
    found = [line(finding) for finding in serious]
    if num_notes:
        found.append(f"{num_notes} notes of irv2caffe check: --dry-run shows them")
    return found
