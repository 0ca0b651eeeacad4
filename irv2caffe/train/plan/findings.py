"""What ``irv2caffe check`` finds in a run that is about to start."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.check.finding import Severity
from irv2caffe.check.registry import RULES
from irv2caffe.check.run import CheckOptions, check
from irv2caffe.errors import InputError
from irv2caffe.proto.text import write_prototxt

if TYPE_CHECKING:
    from irv2caffe.check.finding import Finding
    from irv2caffe.data.inspect.database import Databases
    from irv2caffe.train.plan.plan import Plan

# What the run folder's own copy of the solver mends, and what the plan says by itself.
_MENDED = (
    "snapshot-folder", "snapshot-prefix", "snapshot-never", "snapshot-taken", "solver-mode",
    "display", "net-elsewhere",
)  # fmt: skip
_SAID = (
    "net-missing", "data-missing", "data-unreadable", "data-empty", "backend-unset",
    "max-iter", "test-set-size", "effective-batch",
)  # fmt: skip
# A run that is resumed has passed the rest; the database may be another one by now.
_OF_RECORDS = frozenset(
    ("crop-exceeds-records", "label-range", "records-broken", "records-differ", "height-first")
)
# Options that only say which data it is.
_OF_DATA = frozenset({"train_lmdb", "val_lmdb"})


def look(plan: Plan, facts: Databases) -> tuple[Finding, ...]:
    """The findings on the solver as it will run.

    Where options change the solver, a copy with the changes is looked at; of a run that is resumed
    only what is in its databases.

    Args:
        plan: without findings.
        facts: of its databases, which are not read again.

    Raises:
        Irv2CaffeError: a file cannot be read.
    """
    given, is_resumed = plan.options.given, plan.options.moved
    ignored = frozenset(RULES) - _OF_RECORDS if is_resumed else frozenset((*_MENDED, *_SAID))
    start = plan.options.snapshot
    goes_on = start is not None and start.model.suffix == ".caffemodel"  # not HDF5
    models = [*plan.options.weights, *([start.model] if start is not None and goes_on else ())]
    options = CheckOptions(
        flavor="nvcaffe" if plan.flavor == "nvcaffe" else "bvlc",
        num_gpus=plan.devices.count,
        weights=models[0] if models else None,
        train_lmdb=Path(given["train_lmdb"]) if "train_lmdb" in given else None,
        val_lmdb=Path(given["val_lmdb"]) if "val_lmdb" in given else None,
        epochs=given.get("epochs"),
        lr_decay_epochs=given.get("lr_decay_epochs"),
        ignore=frozenset(RULES) & ignored,
        databases=facts,
    )
    if set(given) <= _OF_DATA and not is_resumed:
        found = check(plan.job.path, options).findings
        built_aside = f"{plan.job.path.parent}/" if plan.options.origin else ""
        return tuple(_without(finding, built_aside) for finding in found)
    with tempfile.TemporaryDirectory(prefix="irv2caffe-") as name:
        folder = Path(name)
        for net_name, net in plan.job.nets.items():
            write_prototxt(folder / net_name, net)
        write_prototxt(folder / "solver.prototxt", plan.solver)
        return tuple(
            _without(finding, f"{folder}/")
            for finding in check(folder / "solver.prototxt", options).findings
        )


def _without(finding: Finding, folder: str) -> Finding:
    """The finding in files without the folder that is gone then."""
    places = (replace(place, file=place.file.removeprefix(folder)) for place in finding.places)
    return replace(finding, places=tuple(places))


def line(finding: Finding) -> str:
    """A finding in one line."""
    where = ""
    if finding.places:
        more = f" and {len(finding.places) - 1} more" if len(finding.places) > 1 else ""
        where = f" at {finding.places[0]}{more}"
    return f"{finding.severity.label}: {finding.what}{where} [{finding.rule}]"


def problem(finding: Finding) -> InputError:
    """An error that keeps a run from its start."""
    return InputError(
        line(finding).removeprefix("error: "),
        f"{finding.fix}; --ignore-findings starts all the same",
    )


def is_error(finding: Finding) -> bool:
    """Whether it stops Caffe or makes the run worthless."""
    return finding.severity is Severity.ERROR


def lines(plan: Plan) -> list[str]:
    """Errors that were ignored, warnings, and how many notes there are."""
    serious = [finding for finding in plan.findings if finding.severity is not Severity.NOTE]
    num_notes = len(plan.findings) - len(serious)
    found = [line(finding) for finding in serious]
    if num_notes:
        found.append(f"{num_notes} notes of irv2caffe check: --dry-run shows them")
    return found
