"""How large a database will be, and whether there is room for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe import system
from irv2caffe.data.build.build_plan import make_plan, pages_bytes, raw_record_bytes
from irv2caffe.data.build.pool import open_pool
from irv2caffe.data.records.items import Skipped
from irv2caffe.errors import OutputError
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.data.build.build_plan import BuildPlan
    from irv2caffe.data.build.pool import WorkerPool
    from irv2caffe.data.options import BuildOptions
    from irv2caffe.data.sources import Source

_NUM_SAMPLED = 24


@dataclass(frozen=True)
class SizeEstimate:
    """What a database will be.

    Attributes:
        source: where its images come from.
        kind: of the source.
        num_images: in the source.
        num_records: in the database, if no image is left out.
        num_classes: classes in the table, or highest label plus one.
        is_shuffled: whether the records are mixed.
        size_bytes: of the database; exact for raw pixels of one size, else from a sample.
        free_bytes: on its disk.
        num_unreadable: found to be no images before any was read.
        resumes_at: the record that an earlier process had come to.
        notes: what a person should know of the source.
    """

    source: str
    kind: str
    num_images: int
    num_records: int
    num_classes: int
    is_shuffled: bool
    size_bytes: int
    free_bytes: int
    num_unreadable: int
    resumes_at: int
    notes: tuple[str, ...]


def estimate_lmdb(source: Source, options: BuildOptions, out: Path) -> SizeEstimate:
    """What make-lmdb would do, without writing anything.

    Args:
        source: of the images.
        options: of the database.
        out: where it would stand.

    Raises:
        InputError: a path that is too long for a key.
    """
    from irv2caffe.data.build.partial import Partial, partial_folder

    plan = make_plan(source, options)
    partial = Partial(partial_folder(out), plan.fingerprint)
    start = partial.state().next_index if partial.is_of_this_plan() else 0
    if raw_record_bytes(options) is not None:
        return estimate(plan, None, out, start)
    with open_pool(plan, num_workers=1) as pool:
        return estimate(plan, pool, out, start)


def estimate(plan: BuildPlan, pool: WorkerPool | None, out: Path, start: int) -> SizeEstimate:
    """The numbers of a plan; records whose size the options do not tell are tried out.

    Args:
        plan: of the database.
        pool: tries them out; may be None where the options tell the size.
        out: where it will stand.
        start: the record that an earlier process had come to.
    """
    source = plan.source
    return SizeEstimate(
        source=str(source.root),
        kind=source.kind,
        num_images=len(source.items),
        num_records=len(plan),
        num_classes=len(source.classes) or max(source.items.labels) + 1,
        is_shuffled=plan.is_shuffled,
        size_bytes=int(_bytes_per_record(plan, pool) * len(plan)),
        free_bytes=system.free_bytes(out),
        num_unreadable=len(source.skipped),
        resumes_at=start,
        notes=source.notes,
    )


def _bytes_per_record(plan: BuildPlan, pool: WorkerPool | None) -> float:
    exact = raw_record_bytes(plan.options)
    if exact is not None:
        return pages_bytes(exact)
    assert pool is not None
    made = [record for unit in pool.run(plan.sample(_NUM_SAMPLED)) for record in unit.records]
    sizes = [pages_bytes(len(record)) for record in made if not isinstance(record, Skipped)]
    return sum(sizes) / len(sizes) if sizes else 0.0


def check_space(estimate: SizeEstimate, folder: Path) -> None:
    """Refuses to start a database that cannot fit.

    Raises:
        OutputError: saying how much is missing.
    """
    share = 1 - estimate.resumes_at / max(1, estimate.num_records)
    wanted = int(estimate.size_bytes * share)
    if wanted > estimate.free_bytes:
        raise OutputError(
            f"about {format_bytes(wanted)} are needed for {folder}, "
            f"{format_bytes(estimate.free_bytes)} are free",
            "choose another disk, a smaller --resize, or --encoded jpg",
        )
