"""The command inspect-lmdb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from irv2caffe import ui
from irv2caffe.errors import EXIT_DONE, EXIT_FINDINGS, UsageError, first_of
from irv2caffe.own_files import refuse_foreign

_PATH = click.Path(path_type=Path)
_NUM_CLASSES_SHOWN = 10


@click.command("inspect-lmdb", short_help="Show the contents and problems of a database.")
@click.argument("database", type=_PATH)
@click.option(
    "--peek",
    type=_PATH,
    metavar="FILE",
    help="Draw some of the images with their classes: .png or .jpg.",
)
@click.option("--force", is_flag=True, help="Overwrite any file with --peek.")
@click.option(
    "--compare",
    "other",
    type=_PATH,
    metavar="DB",
    help="Compare the records with those of another database instead.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    metavar="N",
    default=1000,
    show_default=True,
    help="Number of records to decode, spread over the database.",
)
@click.option("--all", "decode_all", is_flag=True, help="Decode every record.")
@click.option(
    "--batch",
    type=click.IntRange(min=2),
    metavar="N",
    default=32,
    show_default=True,
    help="Batch size for the count of classes per batch, which shows whether records are shuffled.",
)
@click.option("--classes", is_flag=True, help="Print the number of records of every class.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def inspect_lmdb_command(
    database: Path,
    peek: Path | None,
    force: bool,
    other: Path | None,
    sample: int,
    decode_all: bool,
    batch: int,
    classes: bool,
    as_json: bool,
) -> int:
    """Show the contents of DATABASE and its problems, whichever program wrote it.

    The sizes and label of every record are read, and a sample of the images is decoded. Problems
    for Caffe are listed as findings and give exit code 3; so do differences found by --compare.
    """
    from irv2caffe.data.inspect.sandbox import Guard

    if peek is not None and peek.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
        raise UsageError(f"--peek {peek}: give a file name that ends in .png or .jpg")
    if peek is not None:
        refuse_foreign(peek, force=force)
    with Guard() as guard:
        with ui.progress("records" if other is not None else "reading and decoding") as progress:
            if other is not None:
                found = guard.call("compare", [database, other], {}, progress)
            else:
                wanted = None if decode_all else sample
                arguments = {"batch": batch, "sample": wanted}
                found = guard.call("examine", [database], arguments, progress)
        if peek is not None and found.get("num_records") != 0:
            guard.call("draw_sheet", [database, peek], {})
    if as_json:
        ui.show_json(found)
    elif other is not None:
        _show_comparison(found)
    else:
        _show_examination(found, every_class=classes)
    if peek is not None:
        ui.say(f"contact sheet: {peek}")
    return EXIT_FINDINGS if _is_finding(found) else EXIT_DONE


def _is_finding(found: dict[str, Any]) -> bool:
    if "findings" in found:
        return bool(found["findings"])
    return not found["num_equal"] == found["num_first"] == found["num_second"]


def _show_examination(found: dict[str, Any], *, every_class: bool) -> None:
    ui.show(found["database"])
    for name, value in _rows(found):
        ui.show(f"  {name:<14}{value}")
    _show_classes(found, every_class=every_class)
    for line in found["notes"]:
        ui.show(f"note: {line}")
    for line in found["findings"]:
        ui.show(f"finding: {line}")
    for key, why in found["undecodable"]:
        ui.show(f"  {key}: {why}")


def _rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    decoded = f"{found['num_decoded']:,} of {found['num_records']:,}"
    size, map_size = (ui.format_bytes(found[name]) for name in ("size_bytes", "map_bytes"))
    rows = [
        ("records", f"{found['num_records']:,}"),
        ("size", f"{size}, map {map_size}"),
        ("encoding", _counts(found["encodings"])),
        ("shapes", _counts(found["shapes"])),
        ("decoded", f"{decoded}, {found['num_undecodable']:,} cannot be"),
    ]
    if found["mean_values"] is not None:
        values = ", ".join(f"{value:.3f}" for value in found["mean_values"])
        rows.append(("mean", f"{values} (channels as stored: B, G, R)"))
    if found["num_labels"]:
        span = f"{found['num_labels']:,} different, {found['min_label']} to {found['max_label']}"
        rows.append(("labels", f"{span}, of {found['num_classes']:,} classes"))
    if found["num_labels"] > 1:
        seen = f"{found['classes_per_batch']:.1f} classes in {found['batch']} neighbours"
        rows.append(("order", f"{seen}, {found['classes_if_mixed']:.1f} if mixed"))
    return rows


def _counts(counts: dict[str, int]) -> str:
    return first_of([f"{name} ({count:,})" for name, count in counts.items()], 5) or "none"


def _show_classes(found: dict[str, Any], *, every_class: bool) -> None:
    from irv2caffe.data.records.class_table import escape_name

    counts, names = found["images_per_label"], found["class_names"]
    if not counts:
        return
    ordered = sorted(counts.values())
    ui.show(
        f"  {'per class':<14}{ordered[0]:,} to {ordered[-1]:,} records, "
        f"median {ordered[len(ordered) // 2]:,}"
    )
    if not every_class and len(counts) > _NUM_CLASSES_SHOWN:
        return
    widest = ordered[-1]
    for label, count in counts.items():
        place = int(label)
        name = escape_name(names[place]) if 0 <= place < len(names) else ""
        bar = "#" * max(1, round(30 * count / widest))
        ui.show(f"  {label:>6}  {count:>9,}  {bar:<30}  {name}")


def _show_comparison(found: dict[str, Any]) -> None:
    ui.show(f"{found['first']}: {found['num_first']:,} records")
    ui.show(f"{found['second']}: {found['num_second']:,} records")
    for name, words in (
        ("num_equal", "equal, byte for byte"),
        ("num_same_image", "the same pixels and label in other bytes"),
        ("num_other_label", "with another label"),
        ("num_other_image", f"with other pixels (by up to {found['max_difference']:g})"),
        ("num_only_first", "only in the first"),
        ("num_only_second", "only in the second"),
    ):
        if found[name] or name == "num_equal":
            ui.show(f"  {found[name]:,} {words}")
    for key, what in found["examples"]:
        ui.show(f"    {key}: {what}")
