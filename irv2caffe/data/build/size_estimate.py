"""Size of a database before it is built, and the check for free disk space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe import system
from irv2caffe.data.build.build_plan import file_bytes, make_plan, raw_record_bytes
from irv2caffe.data.build.partial import Partial, partial_folder
from irv2caffe.data.build.pool import open_pool
from irv2caffe.data.records.items import Skipped
from irv2caffe.errors import OutputError
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from irv2caffe.data.build.build_plan import BuildPlan
    from irv2caffe.data.build.pool import WorkerPool
    from irv2caffe.data.options import BuildOptions
    from irv2caffe.data.sources import Source

_NUM_SAMPLED = 24


@dataclass(frozen=True)
class SizeEstimate:
    """Expected size of a database.

    Attributes:
        source: path of the source.
        kind: of the source.
        num_images: in the source.
        num_records: in the database, if no image is skipped.
        num_classes: classes in the table, or highest label plus one.
        is_shuffled: whether the records are shuffled.
        size_bytes: of the database; exact for raw pixels of one size, else from a sample.
        free_bytes: free space on its disk.
        num_unreadable: files that were found not to be images when the source was listed.
        resumes_at: number of records that an earlier process made.
        notes: remarks on the source, one line each.
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
    """What make-lmdb would build, without writing anything.

    Args:
        source: of the images.
        options: of the database.
        out: path of the output.

    Raises:
        InputError: a path that is too long for a key.
    """
    plan = make_plan(source, options)
    partial = Partial(partial_folder(out), plan.fingerprint)
    start = partial.state().next_index if partial.is_of_this_plan() else 0
    if raw_record_bytes(options) is not None:
        return estimate(plan, None, out, start)
    with open_pool(plan, num_workers=1) as pool:
        return estimate(plan, pool, out, start)


def estimate(plan: BuildPlan, pool: WorkerPool | None, out: Path, start: int) -> SizeEstimate:
    """The estimate for a plan of which ``start`` records are made.

    ``pool`` makes a sample of records; it may be None where the options determine their size.
    """
    source = plan.source
    size = raw_record_bytes(plan.options)
    if size is not None:
        record_bytes = file_bytes(size)
    else:
        assert pool is not None
        sample = [made for unit in pool.run(plan.sample(_NUM_SAMPLED)) for made in unit.records]
        sizes = [file_bytes(len(made)) for made in sample if not isinstance(made, Skipped)]
        record_bytes = sum(sizes) / len(sizes) if sizes else 0.0
    return SizeEstimate(
        source=str(source.root),
        kind=source.kind,
        num_images=len(source.items),
        num_records=len(plan),
        num_classes=len(source.classes) or max(source.items.labels) + 1,
        is_shuffled=plan.is_shuffled,
        size_bytes=int(record_bytes * len(plan)),
        free_bytes=system.free_bytes(out),
        num_unreadable=len(source.skipped),
        resumes_at=start,
        notes=plan.notes,
    )


def check_space(estimate: SizeEstimate, folder: Path) -> None:
    """Refuses to start a build for which the disk has too little space.

    Raises:
        OutputError: saying how much is needed.
    """
    _check(_missing_bytes(estimate), estimate.free_bytes, str(folder))


def check_space_of_all(estimates: Mapping[Path, SizeEstimate]) -> None:
    """The same for several databases, some of which may be on the same disk.

    Args:
        estimates: by the path of the output.

    Raises:
        OutputError: saying how much is needed.
    """
    disks: dict[int, list[Path]] = {}
    for out in estimates:
        disks.setdefault(_device(out), []).append(out)
    for outs in disks.values():
        needed = sum(_missing_bytes(estimates[out]) for out in outs)
        _check(needed, estimates[outs[0]].free_bytes, " and ".join(map(str, outs)))


def _device(out: Path) -> int:
    """The number of the disk that an output will be on."""
    return next(path for path in (out, *out.absolute().parents) if path.exists()).stat().st_dev


def _missing_bytes(estimate: SizeEstimate) -> int:
    share = 1 - estimate.resumes_at / max(1, estimate.num_records)
    return int(estimate.size_bytes * share)


def _check(needed: int, free: int, what: str) -> None:
    if needed > free:
        raise OutputError(
            f"about {format_bytes(needed)} are needed for {what}, {format_bytes(free)} are free",
            "choose another disk, a smaller --resize, or --encoded jpg",
        )
