"""The command make-lmdb."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irv2caffe import ui
from irv2caffe.cli.make_lmdb_options import MAKE_LMDB_OPTIONS
from irv2caffe.cli.option_sections import SectionCommand, with_options
from irv2caffe.errors import EXIT_DONE, EXIT_FINDINGS, UsageError

if TYPE_CHECKING:
    from irv2caffe.data.build.make_lmdb import BuildOptions, BuildReport, SizeEstimate
    from irv2caffe.data.sources import Source

_PATH = click.Path(path_type=Path)


def _size(text: str) -> tuple[int, int] | None:
    """Parses ``328``, ``WIDTHxHEIGHT`` or ``none``; returns (width, height) or None."""
    if text == "none":
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and 0 < int(part) <= 65_500 for part in parts):
        raise UsageError(f"--resize {text}: give a side such as 328, WIDTHxHEIGHT, or none")
    return int(parts[0]), int(parts[-1])


def _pair(name: str, text: str) -> tuple[float, float]:
    """Parses two numbers separated by a comma."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{name} {text}: give two numbers such as 0.5,1") from error
    return low, high


@click.command(
    "make-lmdb", cls=SectionCommand, short_help="Build an LMDB database for Caffe from images."
)
@click.argument("source", type=_PATH)
@click.argument("out", type=_PATH)
@with_options(MAKE_LMDB_OPTIONS)
def make_lmdb_command(
    source: Path,
    out: Path,
    list_file: Path | None,
    labels: Path | None,
    kind: str | None,
    split: str | None,
    devkit: Path | None,
    class_order: str,
    backend: str,
    flag: Path | None,
    resume: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
    **choices: Any,
) -> int:
    """Build an LMDB database for Caffe from the images in SOURCE.

    SOURCE is a folder with one subfolder per class, a folder with the images listed in --list, an
    ILSVRC archive or another tar file, CIFAR-10 or CIFAR-100, or a folder with MNIST's IDX files.
    By default, the records are byte for byte those of Caffe's
    convert_imageset.

    Images that cannot be read are skipped and listed in OUT/skipped.csv; the exit code is then 3,
    unless --max-skipped allows them. Records that look wrong also give exit code 3. To continue
    after an interruption, run the same command again.
    """
    from irv2caffe.data.build.make_lmdb import check_output
    from irv2caffe.data.sources import open_source

    options = _options(choices)
    if not dry_run:
        check_output(out, force=force)
    images = open_source(
        source,
        list_file,
        labels,
        kind=kind,
        split=split,
        devkit=devkit,
        class_order=class_order,
    )
    if dry_run:
        _dry_run(images, out, options, as_json=as_json)
        return EXIT_DONE
    if backend == "native":
        report = _native(images, out, options, force=force, resume=resume)
    else:
        report = _with_convert_imageset(images, out, options, flag, force=force)
    _show_report(report, as_json=as_json)
    allowed = options.max_skipped is not None
    is_found = report.findings or (report.num_skipped and not allowed)
    return EXIT_FINDINGS if is_found else EXIT_DONE


def _options(choices: dict[str, Any]) -> BuildOptions:
    from irv2caffe.data.build.make_lmdb import Augment, BuildOptions

    area, aspect = choices.pop("area"), choices.pop("aspect")
    color, wanted = choices.pop("color"), choices.pop("augment")
    if wanted == "inception":
        choices["augment"] = Augment(_pair("--area", area), _pair("--aspect", aspect), color)
    choices["size"] = _size(choices.pop("resize"))
    if choices["encoded"] == "none":
        choices["encoded"] = None
    return BuildOptions(**choices)


def _native(
    images: Source, out: Path, options: BuildOptions, *, force: bool, resume: bool
) -> BuildReport:
    from irv2caffe.data.build.make_lmdb import make_lmdb
    from irv2caffe.data.build.partial import partial_folder
    from irv2caffe.errors import OutputExistsError

    try:
        with ui.progress("images") as progress:
            return make_lmdb(
                images,
                out,
                options,
                force=force,
                resume=resume,
                announce=_announce,
                progress=progress,
            )
    except OutputExistsError:
        raise  # nothing was started
    except BaseException:
        if partial_folder(out).exists():
            ui.say(f"{partial_folder(out)} is kept: run the same command again to continue")
        raise


def _with_convert_imageset(
    images: Source, out: Path, options: BuildOptions, flag: Path | None, *, force: bool
) -> BuildReport:
    from irv2caffe.caffe.command import tool_command
    from irv2caffe.caffe.find import find_caffe
    from irv2caffe.data.build.convert_imageset import convert_imageset

    tool = tool_command(find_caffe(flag), "convert_imageset")
    with ui.progress("images") as progress:
        return convert_imageset(
            images,
            out,
            options,
            argv=tool.argv,
            env=tool.env,
            force=force,
            announce=_announce,
            progress=progress,
        )


def _announce(expected: SizeEstimate) -> None:
    for line in _lines(expected):
        ui.say(line)


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


def _dry_run(images: Source, out: Path, options: BuildOptions, *, as_json: bool) -> None:
    from irv2caffe.data.build.size_estimate import estimate_lmdb

    expected = estimate_lmdb(images, options, out)
    if as_json:
        ui.show_json(asdict(expected))
        return
    for line in _lines(expected):
        ui.show(line)


def _show_report(report: BuildReport, *, as_json: bool) -> None:
    from irv2caffe.data.build.side_files import read_skipped

    if as_json:
        ui.show_json(asdict(report))
    else:
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
