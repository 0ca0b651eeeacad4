"""make-lmdb."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from irv2caffe import ui
from irv2caffe.errors import EXIT_DONE, EXIT_FINDINGS, UsageError


def _size(text: str) -> tuple[int, int] | None:
    """``328``, ``WIDTHxHEIGHT`` or ``none`` as (width, height)."""
    if text == "none":
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and 0 < int(part) <= 65_500 for part in parts):
        raise UsageError(f"--resize {text}: give a side such as 328, WIDTHxHEIGHT, or none")
    return int(parts[0]), int(parts[-1])


@click.command("make-lmdb", short_help="Build the LMDB that Caffe reads from images.")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--list", "list_file", type=click.Path(path_type=Path), help="Lines of PATH LABEL.")
@click.option("--labels", type=click.Path(path_type=Path), help="Class table: a labels.txt.")
@click.option("--resize", default="328", show_default=True, metavar="N|WxH|none", help="To pixels.")
@click.option(
    "--encoded",
    type=click.Choice(["jpg", "png", "none"]),
    default="none",
    show_default=True,
    help="Store compressed images, or raw pixels.",
)
@click.option("--gray", is_flag=True, help="One channel instead of three.")
@click.option("--shuffle/--no-shuffle", default=True, show_default=True, help="Mix the classes.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the shuffle.")
@click.option(
    "--backend",
    type=click.Choice(["native", "convert_imageset"]),
    default="native",
    show_default=True,
    help="Who writes: this program, or Caffe's own tool.",
)
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Threads.  [default: cores]")
@click.option("--caffe", "flag", type=click.Path(path_type=Path), help="Caffe of that tool.")
@click.option("--force", is_flag=True, help="Replace an existing database.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def make_lmdb_command(
    source: Path,
    out: Path,
    list_file: Path | None,
    labels: Path | None,
    resize: str,
    encoded: str,
    gray: bool,
    shuffle: bool,
    seed: int,
    backend: str,
    workers: int,
    flag: Path | None,
    force: bool,
    as_json: bool,
) -> int:
    """Build the LMDB that Caffe reads from the images in SOURCE.

    SOURCE holds one folder per class, or the images that --list names. Records equal those of
    Caffe's convert_imageset. Images that cannot be read are left out, listed in OUT/skipped.csv,
    and make the exit code 3.
    """
    from irv2caffe.data.build import BuildOptions, make_lmdb

    options = BuildOptions(
        size=_size(resize),
        encoded=None if encoded == "none" else encoded,
        gray=gray,
        shuffle=shuffle,
        seed=seed,
        workers=workers,
    )
    with ui.progress("images") as progress:
        if backend == "native":
            report = make_lmdb(
                source,
                out,
                options,
                list_file=list_file,
                labels=labels,
                force=force,
                progress=progress,
            )
        else:
            from irv2caffe.caffe.command import tool_command
            from irv2caffe.caffe.find import find_caffe
            from irv2caffe.data.convert_imageset import convert_imageset

            tool = tool_command(find_caffe(flag), "convert_imageset")
            report = convert_imageset(
                source,
                out,
                options,
                argv=tool.argv,
                env=tool.env,
                list_file=list_file,
                labels=labels,
                force=force,
                progress=progress,
            )
    if as_json:
        ui.show_json(asdict(report))
    else:
        ui.show(
            f"{report.out}: {report.num_images:,} images of {report.num_classes:,} classes, "
            f"{report.size_bytes / 1e6:,.1f} MB in {report.seconds:.1f} s"
        )
    if report.skipped:
        ui.say(f"{len(report.skipped):,} images left out, listed in {out}/skipped.csv")
        return EXIT_FINDINGS
    return EXIT_DONE
