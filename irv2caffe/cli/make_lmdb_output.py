"""What make-lmdb says: the plan of a build, and its report."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from irv2caffe import ui

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.data.build.make_lmdb import BuildReport, SizeEstimate
    from irv2caffe.data.build.make_pair import PairReport
    from irv2caffe.data.sources import Source
    from irv2caffe.data.split.split import Split


def images_of(source: Source) -> str:
    """What the progress counts."""
    words = {"train": "training images", "val": "validation images"}
    return words[source.part.name] if source.part is not None else "images"


def announce(expected: SizeEstimate) -> None:
    """Says what is going to be built."""
    for line in _lines(expected):
        ui.say(line)


def announce_rest(expected: SizeEstimate) -> None:
    """Says where the build of one database of a pair goes on."""
    if expected.resumes_at:
        ui.say(f"continuing at record {expected.resumes_at:,}")


def _lines(expected: SizeEstimate) -> list[str]:
    order = "shuffled" if expected.is_shuffled else "in order"
    images = f"{expected.num_images:,} images of {expected.num_classes:,} classes"
    size, free = ui.format_bytes(expected.size_bytes), ui.format_bytes(expected.free_bytes)
    lines = [
        f"{expected.source} ({expected.kind}): {images}, {order}",
        f"{expected.num_records:,} records, about {size}; {free} are free",
        *(f"note: {note}" for note in expected.notes),
    ]
    if expected.num_unreadable:
        lines.append(f"note: {expected.num_unreadable:,} of them are not images")
    if expected.resumes_at:
        lines.append(f"continuing at record {expected.resumes_at:,}")
    return lines


def pair_lines(
    split: Split, train: SizeEstimate, val: SizeEstimate, outs: tuple[Path, Path]
) -> list[str]:
    """What is going to be built of a divided source, one line each; ``outs`` are its databases."""
    part = split.train.part
    assert part is not None
    num_images, classes = train.num_images + val.num_images, f"{train.num_classes:,} classes"
    share = f"{100 * part.val_fraction:g} % of each class, seed {part.seed}"
    lines = [
        f"{train.source} ({train.kind}): {num_images:,} images of {classes}",
        f"{val.num_images:,} of them for validation ({share})",
    ]
    for out, size in zip(outs, (train, val), strict=True):
        order = "shuffled" if size.is_shuffled else "in order"
        records, about = f"{size.num_records:,} records", ui.format_bytes(size.size_bytes)
        done = ", finished already" if size.resumes_at == size.num_records else ""
        lines.append(f"{out}: {records}, {order}, about {about}{done}")
    lines.append(f"{ui.format_bytes(train.free_bytes)} are free")
    lines += [f"note: {note}" for note in train.notes]
    if train.num_unreadable:
        lines.append(f"note: {train.num_unreadable:,} files are not images")
    return lines


def show_plan(expected: SizeEstimate, *, as_json: bool) -> None:
    """The result of a dry run."""
    if as_json:
        ui.show_json(asdict(expected))
        return
    for line in _lines(expected):
        ui.show(line)


def show_report(report: BuildReport, *, as_json: bool) -> None:
    """The result of a build."""
    if as_json:
        ui.show_json(asdict(report))
    _show_database(report, as_json=as_json)


def show_pair(report: PairReport, *, as_json: bool) -> None:
    """The result of a build of two databases."""
    if as_json:
        ui.show_json(asdict(report))
    for part in (report.train, report.val):
        _show_database(part, as_json=as_json)
    if report.num_duplicates:
        ui.say(
            f"{report.num_duplicates:,} image(s) repeat the bytes of another, listed in "
            f"{report.train.out}/duplicates.csv"
        )
    for finding in report.findings:
        ui.say(f"finding: {finding}")
    ui.say_next(
        *("build-net", "--out", "net"),
        *("--train-lmdb", report.train.out, "--val-lmdb", report.val.out),
        *("--variant", "auto"),
    )


def _show_database(report: BuildReport, *, as_json: bool) -> None:
    from irv2caffe.data.build.side_files import read_skipped

    if not as_json:
        ui.show(
            f"{report.out}: {report.num_images:,} images of {report.num_classes:,} classes, "
            f"{ui.format_bytes(report.size_bytes)} in {report.seconds:.1f} s"
        )
    for finding in report.findings:
        ui.say(f"finding: {finding}")
    if report.num_complaints:
        ui.say(
            f"{report.num_complaints:,} damaged images accepted, listed in "
            f"{report.out}/complaints.csv"
        )
    if report.num_skipped:
        for reason, count in report.skipped.items():
            ui.say(f"  {count:,}: {reason}")
        first = "".join(
            f"; the first: {report.source}/{row[0]}" for row in read_skipped(report.out, 1)
        )
        ui.say(f"{report.num_skipped:,} images skipped, listed in {report.out}/skipped.csv{first}")
