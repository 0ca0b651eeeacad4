"""make-lmdb: builds the database in ``OUT.partial`` and renames it when it is complete."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from irv2caffe.atomic import refuse_existing
from irv2caffe.data.build.build_plan import make_plan
from irv2caffe.data.build.partial import open_partial
from irv2caffe.data.build.pool import open_pool
from irv2caffe.data.build.resume_check import ChangedSourceError, check_unchanged
from irv2caffe.data.build.side_files import (
    BuildReport,
    keep_skipped,
    read_skipped,
    skipped_beside,
    write_side_files,
)
from irv2caffe.data.build.size_estimate import SizeEstimate, check_space, estimate
from irv2caffe.data.build.writer import RecordWriter
from irv2caffe.data.options import Augment, BuildOptions
from irv2caffe.data.records.database_files import is_made_here, read_manifest
from irv2caffe.data.records.items import GONE, LeftOutError
from irv2caffe.data.sources.lists import hint_on_missing
from irv2caffe.errors import OutputError, OutputExistsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from irv2caffe.data.build.build_plan import BuildPlan
    from irv2caffe.data.build.partial import Partial
    from irv2caffe.data.build.state import State
    from irv2caffe.data.sources import Source

__all__ = ["Augment", "BuildOptions", "BuildReport", "SizeEstimate", "make_lmdb"]


def make_lmdb(
    source: Source,
    out: Path,
    options: BuildOptions,
    *,
    force: bool = False,
    resume: bool = True,
    announce: Callable[[SizeEstimate], None] = lambda _estimate: None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> BuildReport:
    """Builds an LMDB whose records equal convert_imageset's.

    The database grows in ``OUT.partial``. After an error, an interruption or a power cut the same
    call resumes from the last commit, and ends with the same bytes.

    Args:
        source: of the images, from :func:`irv2caffe.data.sources.open_source`.
        out: folder of the database.
        options: size, encoding, order.
        force: replace an existing database once the new one is complete; start over where an
            unfinished one has other images or options.
        resume: continue an unfinished database; else start over.
        announce: called once, before the work begins.
        progress: called with (records done, all records).

    Raises:
        LeftOutError: no readable images, or too many skipped.
        InputError: the disk fails.
        OutputExistsError: ``out`` exists and ``force`` is not set, or it is not a database; or an
            unfinished one has other images or options.
        OutputError: no space, or ``out`` cannot be written.
        WorkerDiedError: a worker crashed or hangs.
    """
    check_output(out, force=force)
    check_outside_source(source, out)
    plan = make_plan(source, options)
    try:
        return _make(plan, out, announce, progress, force=force, resume=resume)
    except ChangedSourceError:
        if not force:
            raise
        return _make(plan, out, announce, progress, force=True, resume=False)


def _make(
    plan: BuildPlan,
    out: Path,
    announce: Callable[[SizeEstimate], None],
    progress: Callable[[int, int], None],
    *,
    force: bool,
    resume: bool,
) -> BuildReport:
    with open_partial(out, plan.fingerprint, plan.inputs, force=force, resume=resume) as partial:
        begun = time.monotonic()
        start = len(plan)
        if not partial.is_complete():
            state = partial.state()
            start = state.next_index
            try:
                _write_records(plan, partial, state, announce, progress)
                if state.num_written == 0:
                    raise _no_records(plan, state, partial.folder)
            except LeftOutError as error:
                if not partial.has_commits():
                    keep_skipped(partial.folder, out, error)
                raise
            findings = state.depth.findings(state.num_written, plan.options.bit_depth)
            write_side_files(partial.folder, plan, state, "native", findings)
        try:
            check_output(out, force=force)
        except OutputExistsError as error:
            raise OutputError(
                f"{error.message}: it came while the database was built",
                "move it away; then the same command only renames what is complete",
            ) from error
        partial.finish(out)
        with suppress(OSError):
            skipped_beside(out).unlink()  # of an earlier, failed build
    return make_report(out, start, len(plan) - start, time.monotonic() - begun)


def _write_records(
    plan: BuildPlan,
    partial: Partial,
    state: State,
    announce: Callable[[SizeEstimate], None],
    progress: Callable[[int, int], None],
) -> None:
    """Makes and writes the records that are not committed yet."""
    with open_pool(plan) as pool:
        expected = estimate(plan, pool, partial.folder, state.next_index)
        announce(expected)
        check_space(expected, partial.folder)
        with RecordWriter(plan, partial, state) as writer:
            if state.next_index:
                check_unchanged(plan, partial.folder, state.next_index, pool)
            progress(state.next_index, len(plan))
            for result in pool.run(plan.units(state.next_index)):
                writer.add(result)
                progress(state.next_index, len(plan))


def _no_records(plan: BuildPlan, state: State, folder: Path) -> LeftOutError:
    reason, count = state.skipped.most_common(1)[0]
    name = next((row[0] for row in read_skipped(folder) if row[1] == reason), "")
    hint = f"{count:,} of them because: {reason}; the first: {plan.source.root}/{name}"
    if plan.source.kind == "list" and reason == GONE:
        hint += hint_on_missing(plan.source.root, name)
    return LeftOutError(f"none of the {len(plan):,} images could be read", hint)


def check_output(out: Path, *, force: bool) -> None:
    """Refuses to replace ``out``, unless it is a database and ``force`` is set.

    Raises:
        OutputExistsError: it exists.
    """
    if not force:
        refuse_existing(out)
    elif (out.exists() or out.is_symlink()) and not is_made_here(out):
        raise OutputExistsError(
            f"{out} exists and is no LMDB, or holds other files too",
            "--force replaces databases only; choose another OUT",
        )


def check_outside_source(source: Source, out: Path) -> None:
    """Refuses an output among the class folders, where the next build would take it for a class.

    Raises:
        OutputError: it is there.
    """
    if source.kind == "folders" and source.root.resolve() in out.resolve().parents:
        raise OutputError(
            f"{out} lies in {source.root}, among the class folders", "choose an OUT elsewhere"
        )


def make_report(out: Path, start: int, num_done: int, seconds: float) -> BuildReport:
    """The report of a complete database, of which this process made the last ``num_done`` records.

    Raises:
        OutputError: the manifest cannot be read.
    """
    manifest = read_manifest(out)
    if not manifest:
        raise OutputError(
            f"{out} is complete, but its manifest.json cannot be read", "does its disk fail?"
        )
    return BuildReport(
        out=out,
        source=manifest["source"],
        num_images=manifest["num_images"],
        num_classes=manifest["num_classes"],
        num_skipped=manifest["num_skipped"],
        skipped=manifest["skipped"],
        num_complaints=manifest["num_complaints"],
        mean_values=manifest["mean_values"],
        size_bytes=(out / "data.mdb").stat().st_size,
        seconds=round(seconds, 3),
        images_per_second=round(num_done / max(1e-3, seconds), 1),
        resumed_at=start,
        notes=tuple(manifest["notes"]),
        findings=tuple(manifest.get("findings", ())),
    )
