"""A training and a validation database of one source, built in one run that can be interrupted."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING

from irv2caffe.atomic import refuse_existing
from irv2caffe.data.build.build_plan import make_plan
from irv2caffe.data.build.make_lmdb import check_output, check_outside_source, make_report
from irv2caffe.data.build.partial import Partial, check_partial, partial_folder
from irv2caffe.data.build.pool import open_pool
from irv2caffe.data.build.resume_check import check_unchanged
from irv2caffe.data.build.size_estimate import check_space_of_all, estimate_lmdb
from irv2caffe.data.records.class_table import some
from irv2caffe.data.records.database_files import read_manifest
from irv2caffe.data.split.split import class_name
from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from irv2caffe.data.build.build_plan import BuildPlan
    from irv2caffe.data.build.side_files import BuildReport
    from irv2caffe.data.build.size_estimate import SizeEstimate
    from irv2caffe.data.options import BuildOptions
    from irv2caffe.data.sources import Source
    from irv2caffe.data.split.split import Split

    Build = Callable[[Source, Path, BuildOptions], BuildReport]

_TRAIN = re.compile(r"(?<![a-z])train(?:ing)?(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class PairReport:
    """The result of make-lmdb with a validation part.

    Attributes:
        train: the training database.
        val: the validation database.
        num_duplicates: images that repeat the bytes of another; ``duplicates.csv`` of the training
            database names them.
        notes: on the division, one line each.
        findings: probable problems with it, one line each; those of a database are in its report.
    """

    train: BuildReport
    val: BuildReport
    num_duplicates: int
    notes: tuple[str, ...]
    findings: tuple[str, ...]


def default_val_out(out: Path) -> Path:
    """The validation database beside a training database.

    The last word ``train`` (or ``training``) in its name becomes ``val``; a name without that
    word gets ``-val`` at its end.
    """
    words = list(_TRAIN.finditer(out.name))
    if not words:
        return out.with_name(f"{out.name}-val")
    start, end = words[-1].span()
    return out.with_name(f"{out.name[:start]}val{out.name[end:]}")


def check_pair(source: Source, out: Path, val_out: Path, *, force: bool) -> None:
    """Refuses, before images are compared, a pair that cannot be built.

    Raises:
        UsageError: one database would lie in the other.
        OutputError: as for ``make_lmdb.make_lmdb``; one finished database of an interrupted pair
            may exist.
    """
    if _overlap(out.resolve(), val_out.resolve()):
        raise UsageError(
            f"{out} and {val_out} must be two folders, neither of them in the other",
            "--val-out names the folder of the validation database",
        )
    for path in (out, val_out):
        check_outside_source(source, path)
        if force:
            check_output(path, force=True)
    if not force and out.exists() and val_out.exists():
        refuse_existing(out)


def _overlap(out: Path, val_out: Path) -> bool:
    """Whether two databases, finished or not, would share a folder."""
    return any(
        first == second or first in second.parents or second in first.parents
        for first in (out, partial_folder(out))
        for second in (val_out, partial_folder(val_out))
    )


def estimate_pair(
    split: Split, out: Path, val_out: Path, options: BuildOptions
) -> tuple[SizeEstimate, SizeEstimate]:
    """Expected sizes of the training and the validation database."""
    return (
        estimate_lmdb(split.train, options, out),
        estimate_lmdb(split.val, options.for_validation(), val_out),
    )


def make_pair(
    split: Split,
    out: Path,
    val_out: Path,
    options: BuildOptions,
    build: Build,
    *,
    backend: str = "native",
    force: bool = False,
    resume: bool = True,
    announce: Callable[[SizeEstimate, SizeEstimate], None] = lambda _train, _val: None,
) -> PairReport:
    """Builds the validation database, then the training database.

    After an interruption the same call goes on: a finished database of the same plan is kept, and
    ``build`` resumes an unfinished one.

    Args:
        split: the images of both.
        out: folder of the training database.
        val_out: folder of the validation database.
        options: of the training database; see ``BuildOptions.for_validation`` for the other.
        build: builds one of them, with ``force`` and ``resume``.
        backend: that ``build`` uses.
        force: replace existing databases.
        resume: continue an interrupted pair.
        announce: called once with the expected sizes of the training and the validation database.

    Raises:
        OutputExistsError: one of them exists and is of other images or options.
        OutputError: no space for both.
        Irv2CaffeError: as for ``build``.
    """
    plans = {
        val_out: make_plan(split.val, options.for_validation()),
        out: make_plan(split.train, options),
    }
    kept = _kept(plans, backend, force=force) if resume else set()
    for path, plan in plans.items():
        if path in kept:
            continue
        check_output(path, force=force)
        if backend == "native":  # the other has no unfinished database
            check_partial(path, plan.fingerprint, plan.inputs, force=force, resume=resume)
    sizes = dict(zip((out, val_out), estimate_pair(split, out, val_out, options), strict=True))
    for path in kept:
        sizes[path] = replace(sizes[path], resumes_at=len(plans[path]))
    announce(sizes[out], sizes[val_out])
    check_space_of_all(sizes)
    reports: dict[Path, BuildReport] = {}
    for path, plan in plans.items():
        if path in kept:
            reports[path] = _checked_again(path, plan)
            continue
        most = plan.options.max_skipped
        if most is not None:  # both together may skip so many
            most = max(0, most - sum(report.num_skipped for report in reports.values()))
        reports[path] = build(plan.source, path, replace(plan.options, max_skipped=most))
    findings = (*_lost_classes(plans[out], out), *_lost_classes(plans[val_out], val_out))
    return PairReport(reports[out], reports[val_out], split.num_duplicates, split.notes, findings)


def _kept(plans: dict[Path, BuildPlan], backend: str, *, force: bool) -> set[Path]:
    """The databases that an interrupted run of the same pair has finished.

    With ``force``, a finished database is one of an earlier pair, unless the other one is
    unfinished.
    """
    kept = set()
    for (out, plan), (other_out, other) in permutations(plans.items()):
        manifest = read_manifest(out)
        is_same = (manifest.get("fingerprint"), manifest.get("backend")) == (
            plan.fingerprint,
            backend,
        )
        partial = Partial(partial_folder(other_out), other.fingerprint)
        if is_same and (partial.is_of_this_plan() or not (force or other_out.exists())):
            kept.add(out)
    return kept


def _checked_again(out: Path, plan: BuildPlan) -> BuildReport:
    """The report of a finished database, whose images must not have changed since."""
    with open_pool(plan, num_workers=1) as pool:
        check_unchanged(plan, out, len(plan), pool)
    return make_report(out, len(plan), 0, 0.0)


def _lost_classes(plan: BuildPlan, out: Path) -> list[str]:
    """A finding on classes all of whose images in a part cannot be read."""
    source, stored = plan.source, read_manifest(out).get("images_per_label", {})
    lost = sorted({label for label in source.items.labels if not stored.get(str(label))})
    if not lost:
        return []
    what = "validation" if source.is_validation else "training"
    names = some([class_name(source, label) for label in lost])
    return [f"no {what} image of {len(lost):,} class(es) can be read: {names}"]
