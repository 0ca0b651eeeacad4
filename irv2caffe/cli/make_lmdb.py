"""The command make-lmdb."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irv2caffe import ui
from irv2caffe.cli.make_lmdb_options import MAKE_LMDB_OPTIONS
from irv2caffe.cli.make_lmdb_output import (
    announce,
    announce_rest,
    images_of,
    show_pair,
    show_plan,
    show_report,
)
from irv2caffe.cli.make_lmdb_pair import Division, How, build_pair, plan_pair
from irv2caffe.cli.option_sections import SectionCommand, with_options
from irv2caffe.errors import EXIT_DONE, EXIT_FINDINGS, UsageError

if TYPE_CHECKING:
    from irv2caffe.caffe.command import Command
    from irv2caffe.data.build.make_lmdb import BuildOptions, BuildReport
    from irv2caffe.data.build.make_pair import Build
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


def _require_names(*folders: Path | None) -> None:
    """Refuses ``.``, ``..`` and ``/``: what is made beside a database is called after it."""
    for folder in folders:
        if folder is not None and folder.name in {"", ".."}:
            raise UsageError(f"{folder} cannot become a database", "name a new folder")


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
    val_fraction: float | None,
    val_out: Path | None,
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
    By default, the records are byte for byte those of Caffe's convert_imageset. With
    --val-fraction, a training and a validation database are built in one run.

    Images that cannot be read are skipped and listed in OUT/skipped.csv; the exit code is then 3,
    unless --max-skipped allows them. Records that look wrong also give exit code 3. To continue
    after an interruption, run the same command again.
    """
    from irv2caffe.data.build.make_lmdb import check_output
    from irv2caffe.data.sources import open_source

    options = _options(choices)
    _require_names(out, val_out)
    if val_out is not None and val_fraction is None:
        raise UsageError("--val-out goes with --val-fraction")
    if not dry_run and val_fraction is None:
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
    how = How(backend, flag, force, resume)
    if val_fraction is not None:
        division = Division(val_fraction, split, out, val_out)
        return _two(images, division, options, how, dry_run=dry_run, as_json=as_json)
    return _one(images, out, options, how, dry_run=dry_run, as_json=as_json)


def _one(
    images: Source, out: Path, options: BuildOptions, how: How, *, dry_run: bool, as_json: bool
) -> int:
    from irv2caffe.data.build.size_estimate import estimate_lmdb

    if dry_run:
        show_plan(estimate_lmdb(images, options, out), as_json=as_json)
        return EXIT_DONE
    report = _builder(images, options, how)(images, out, options)
    show_report(report, as_json=as_json)
    return _exit_code(options, [report])


def _two(
    images: Source,
    division: Division,
    options: BuildOptions,
    how: How,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    if dry_run:
        plan_pair(division, images, options, as_json=as_json)
        return EXIT_DONE
    report = build_pair(division, images, options, _builder(images, options, how), how)
    show_pair(report, as_json=as_json)
    return _exit_code(options, [report.train, report.val], report.findings)


def _exit_code(
    options: BuildOptions, reports: list[BuildReport], findings: tuple[str, ...] = ()
) -> int:
    is_allowed = options.max_skipped is not None
    is_found = findings or any(
        report.findings or (report.num_skipped and not is_allowed) for report in reports
    )
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


def _builder(images: Source, options: BuildOptions, how: How) -> Build:
    """The function that builds one database of a source."""
    if how.backend == "native":
        return partial(_native, force=how.force, resume=how.resume)
    from irv2caffe.caffe.command import tool_command
    from irv2caffe.caffe.find import find_caffe
    from irv2caffe.data.build.convert_imageset import check_options

    check_options(images, options)
    tool = tool_command(find_caffe(how.flag), "convert_imageset")
    return partial(_with_convert_imageset, tool=tool, force=how.force)


def _native(
    images: Source, out: Path, options: BuildOptions, *, force: bool, resume: bool
) -> BuildReport:
    from irv2caffe.data.build.make_lmdb import make_lmdb
    from irv2caffe.data.build.partial import partial_folder
    from irv2caffe.errors import OutputExistsError

    try:
        with ui.progress(images_of(images)) as progress:
            return make_lmdb(
                images,
                out,
                options,
                force=force,
                resume=resume,
                announce=announce if images.part is None else announce_rest,
                progress=progress,
            )
    except OutputExistsError:
        raise  # nothing was started
    except BaseException:
        if partial_folder(out).exists():
            ui.say(f"{partial_folder(out)} is kept: run the same command again to continue")
        raise


def _with_convert_imageset(
    images: Source, out: Path, options: BuildOptions, *, tool: Command, force: bool
) -> BuildReport:
    from irv2caffe.data.build.convert_imageset import convert_imageset

    with ui.progress(images_of(images)) as progress:
        return convert_imageset(
            images,
            out,
            options,
            argv=tool.argv,
            env=tool.env,
            force=force,
            announce=announce if images.part is None else announce_rest,
            progress=progress,
        )
