"""check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irv2caffe import ui
from irv2caffe.cli.help import Command, section
from irv2caffe.errors import EXIT_DONE, EXIT_FINDINGS, UsageError

if TYPE_CHECKING:
    from irv2caffe.check.finding import Finding
    from irv2caffe.check.run import Report

_LEVELS = ("note", "warning", "error")
_WIDTH = 96
_run, _data, _report = section("The run"), section("Its data"), section("The report")


def _list_rules(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Lists the rules and ends."""
    if not wanted:
        return
    import irv2caffe.check.rules  # noqa: F401  registers the rules
    from irv2caffe.check.registry import RULES

    if "--json" in ctx.args or ctx.params.get("as_json"):
        keys = ("name", "severity", "topic", "summary", "source")
        rows = [{key: getattr(each, key) for key in keys} for each in RULES.values()]
        ui.show_json([{**row, "severity": row["severity"].label} for row in rows])
    else:
        rows_ = [(each.name, each.severity.label, each.summary) for each in RULES.values()]
        ui.show_table(("rule", "severity", "looks for"), rows_)
    ctx.exit()


@click.command("check", cls=Command, short_help="Look for flaws before a GPU-day is spent.")
@click.argument("prototxt", metavar="SOLVER_OR_NET", type=click.Path(path_type=Path))
@_run("--gpus", metavar="none|0,1", help="That will train.  [what our headers say, else one]")
@_run("--flavor", type=click.Choice(["bvlc", "nvcaffe"]), default="bvlc", help="Whose Caffe.")
@_run("--epochs", type=float, help="How long the run should be; compared with max_iter.")
@_run("--lr-decay-epochs", type=float, help="Compared with stepsize.")
@_run("--weights", type=click.Path(path_type=Path), help="The .caffemodel it starts from.")
@_data("--train-lmdb", type=click.Path(path_type=Path), help="Stands for what TRAIN reads.")
@_data("--val-lmdb", type=click.Path(path_type=Path), help="Stands for what TEST reads.")
@_data("--num-train-images", type=click.IntRange(min=1), help="Instead of the database's.")
@_data("--num-val-images", type=click.IntRange(min=1), help="Instead of the database's.")
@_report("--ignore", multiple=True, metavar="RULE", help="Leave a rule out; may be repeated.")
@_report(
    "--fail-on",
    type=click.Choice(_LEVELS),
    default="warning",
    show_default=True,
    help="Exit with 3 for this and worse.",
)
@_report(
    "--show",
    type=click.Choice(_LEVELS),
    default="note",
    show_default=True,
    help="Print this and worse.",
)
@_report("--json", "as_json", is_flag=True, is_eager=True, help="Report as JSON, all of it.")
@_report(
    "--list-rules",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_rules,
    help="List all rules and end.",
)
def check_command(
    prototxt: Path,
    gpus: str | None,
    fail_on: str,
    show: str,
    as_json: bool,
    ignore: tuple[str, ...],
    num_train_images: int | None,
    num_val_images: int | None,
    **options: Any,
) -> int:
    """Look for flaws of a run, or of a net, before a GPU-day is spent.

    SOLVER_OR_NET is anybody's solver.prototxt, with the nets it names, or a net. The databases of
    its Data layers are looked at where they exist. Exits with 3 if there is anything above a note.
    """
    from irv2caffe.check.run import CheckOptions, check

    for name in ("epochs", "lr_decay_epochs"):
        value = options[name]
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name.replace('_', '-')} must be above 0 and finite")
    report = check(
        prototxt,
        CheckOptions(
            num_gpus=_num_gpus(gpus),
            num_train=num_train_images,
            num_val=num_val_images,
            ignore=frozenset(ignore),
            **options,
        ),
    )
    if as_json:
        ui.show_json(report.as_dict())
    else:
        _show(report, _LEVELS.index(show))
    worst = -1 if report.worst is None else int(report.worst)
    return EXIT_FINDINGS if worst >= _LEVELS.index(fail_on) else EXIT_DONE


def _num_gpus(gpus: str | None) -> int:
    """How many devices ``--gpus`` names; 0 where nothing is said."""
    if gpus is None:
        return 0
    if gpus == "none":
        return 1
    parts = gpus.split(",")
    known = all(part.isdecimal() and len(part) < 10 for part in parts)
    if not known or len(set(map(int, parts))) != len(parts):
        raise UsageError(f"--gpus {gpus}: give none, or different numbers such as 0,1")
    return len(parts)


def _show(report: Report, least: int) -> None:
    """Findings, worst first, then one line that counts them."""
    for line in report.summary:
        ui.show(line)
    for finding in report.findings:
        if finding.severity >= least:
            _show_finding(finding)
    counts = [
        f"{count} {name}{'' if count == 1 else 's'}"
        for name in reversed(_LEVELS)
        if (count := sum(f.severity.label == name for f in report.findings))
    ]
    if report.findings:
        ui.show("")
    ui.show(f"{', '.join(report.files)}: {', '.join(counts) or 'nothing found'}")


def _show_finding(finding: Finding) -> None:
    import textwrap

    ui.show(f"\n{finding.severity.label}: {finding.what}  [{finding.rule}]")
    rows = [("at", _places(finding)), ("why", finding.why), ("fix", finding.fix)]
    for name, text in [*rows, ("see", finding.source)]:
        if text:
            first, rest = f"  {name:<4}", " " * 6
            ui.show(
                textwrap.fill(
                    text,
                    _WIDTH,
                    initial_indent=first,
                    subsequent_indent=rest,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )


def _places(finding: Finding) -> str:
    """All places, or how many and the first."""
    places = finding.places
    if len(places) <= 3:
        return ", ".join(map(str, places))
    kind = "layers" if places[0].layer else "places"
    return f"{len(places)} {kind}, first: {places[0]}"
