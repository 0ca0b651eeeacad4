"""Findings of ``irv2caffe check`` on the job as it will run, and which of them are errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.check.finding import Severity
from irv2caffe.check.finding_text import finding_lines
from irv2caffe.check.registry import RULES
from irv2caffe.check.run import CheckOptions, check_reading
from irv2caffe.errors import InputError

if TYPE_CHECKING:
    from irv2caffe.check.finding import Finding
    from irv2caffe.data.inspect.database import Databases
    from irv2caffe.train.plan.plan import Plan

# The rules of check that are skipped for a training, and why.
SKIPPED_RULES = {
    "snapshot-folder": "snapshots go into the run folder",
    "snapshot-prefix": "snapshots go into the run folder",
    "snapshot-taken": "snapshots go into the run folder",
    "snapshot-never": "the trainer asks for snapshots, and for one at the end",
    "solver-mode": "the run's copy of the solver gets its mode from --gpus",
    "display": "the run's copy of the solver has a display interval",
    "net-elsewhere": "the run's copies have absolute paths",
    "net-missing": "an error of the plan",
    "solver-as-net": "an error of the plan",
    "effective-batch": "a row of the plan",
}
# Rules whose findings stop Caffe at its start: errors even with --ignore-findings. A missing
# database is only a note of check, which may run on another machine than the training.
STOPPING_RULES = frozenset(
    (
        *("data-missing", "data-unreadable", "data-empty", "backend-unset", "max-iter"),
        "cudnn-missing",
    )
)
# Those that check, which may run on another machine than the training, does not report as errors.
_CERTAIN = frozenset(("data-missing", "cudnn-missing"))
# The rules checked on --resume: the run passed the others, but its databases may have changed.
_RESUME_RULES = frozenset(
    ("crop-exceeds-records", "label-range", "records-broken", "records-differ", "height-first")
)


def job_findings(plan: Plan, databases: Databases) -> tuple[Finding, ...]:
    """The findings of check on a job, with the options applied.

    For a resumed run only its databases are checked.

    Args:
        plan: a plan without findings.
        databases: databases that are already read.

    Raises:
        Irv2CaffeError: a database or model that the options name cannot be read.
    """
    given, start = plan.options.given, plan.options.snapshot
    rules = (
        _RESUME_RULES | STOPPING_RULES
        if plan.options.moved
        else RULES.keys() - SKIPPED_RULES.keys()
    )
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
        ignore=frozenset(RULES) - rules | plan.engine.moot_rules,
        databases=databases,
        cudnn=plan.can.cudnn if plan.can is not None and plan.engine.name == "caffe" else None,
    )
    found = check_reading(plan.job.as_written(), options).findings
    return tuple(map(_without_folder, found)) if plan.options.origin else found


def _without_folder(finding: Finding) -> Finding:
    """The finding with file names only, for a recipe's files in a temporary folder."""
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
    anyway = "" if finding.rule in STOPPING_RULES else "; --ignore-findings starts anyway"
    return InputError(
        line(finding).removeprefix(f"{finding.severity.label}: "), f"{finding.fix}{anyway}"
    )


def stops(finding: Finding) -> bool:
    """Whether Caffe would stop at its start because of the finding."""
    return finding.rule in _CERTAIN or (finding.rule in STOPPING_RULES and is_error(finding))


def is_error(finding: Finding) -> bool:
    """Whether a finding stops Caffe or makes the run worthless."""
    return finding.severity is Severity.ERROR


def prevents_start(finding: Finding, plan: Plan) -> bool:
    """Whether a finding is one of the plan's problems."""
    return stops(finding) or (is_error(finding) and not plan.options.ignore_findings)


def lines(plan: Plan, *, with_notes: bool = False) -> list[str]:
    """The findings that do not prevent the start: ignored errors and warnings in full.

    Args:
        plan: a plan with its findings.
        with_notes: one line for each note, instead of their number.
    """
    told = [each for each in plan.findings if not prevents_start(each, plan)]
    found = [
        text
        for finding in told
        if finding.severity is not Severity.NOTE
        for text in finding_lines(finding, source=False)
    ]
    notes = [line(finding) for finding in told if finding.severity is Severity.NOTE]
    if with_notes:
        return found + notes
    if notes:
        count = "1 note" if len(notes) == 1 else f"{len(notes)} notes"
        found.append(f"{count} of irv2caffe check: --dry-run shows them")
    return found
