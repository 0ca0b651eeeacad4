"""The command check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irv2caffe import ui
from irv2caffe.cli.option_sections import SectionCommand, section
from irv2caffe.errors import EXIT_DONE, EXIT_FINDINGS, UsageError

if TYPE_CHECKING:
    from irv2caffe.check.run import Report

_LEVELS = ("note", "warning", "error")
_run, _data, _report = section("Training options"), section("Data options"), section("Other")
_PATH = click.Path(path_type=Path)


def _list_rules(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Lists the rules and exits."""
    if not wanted:
        return
    import irv2caffe.check.rules  # noqa: F401  registers the rules
    from irv2caffe.check.registry import RULES

    if ctx.params.get("as_json"):
        keys = ("name", "severity", "topic", "summary", "source")
        rows = [{key: getattr(each, key) for key in keys} for each in RULES.values()]
        ui.show_json([{**row, "severity": row["severity"].label} for row in rows])
    else:
        rows_ = [(each.name, each.severity.label, each.summary) for each in RULES.values()]
        ui.show_table(("rule", "severity", "looks for"), rows_)
    ctx.exit()


@click.command("check", cls=SectionCommand, short_help="Check a solver or net for mistakes.")
@click.argument("prototxt", metavar="SOLVER_OR_NET", type=_PATH)
@_run(
    "--gpus",
    metavar="none|0,1",
    help="GPUs used for training.  [default: as in a header written by build-net, else one device]",
)
@_run(
    "--flavor",
    type=click.Choice(["bvlc", "nvcaffe"]),
    default="bvlc",
    show_default=True,
    help="Caffe that will train. bvlc: batch_size is per GPU. nvcaffe (NVIDIA's fork): batch_size "
    "is shared by all GPUs.",
)
@_run(
    "--epochs",
    type=float,
    metavar="N",
    help="Intended length of the training in epochs, compared with max_iter.",
)
@_run(
    "--lr-decay-epochs",
    type=float,
    metavar="N",
    help="Intended epochs between two steps of the learning rate, compared with stepsize.",
)
@_run(
    "--weights", type=_PATH, metavar="FILE", help="The .caffemodel that the training starts from."
)
@_data(
    "--train-lmdb",
    type=_PATH,
    metavar="DB",
    help="Training database to check instead of the net's own.",
)
@_data(
    "--val-lmdb",
    type=_PATH,
    metavar="DB",
    help="Validation database to check instead of the net's own.",
)
@_data(
    "--num-train-images",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of training images.  [default: counted in the database]",
)
@_data(
    "--num-val-images",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of validation images.  [default: counted in the database]",
)
@_report("--ignore", multiple=True, metavar="RULE", help="Rule to skip.  Repeatable.")
@_report(
    "--fail-on",
    type=click.Choice(_LEVELS),
    default="warning",
    show_default=True,
    help="Lowest severity that gives exit code 3.",
)
@_report(
    "--show",
    type=click.Choice(_LEVELS),
    default="note",
    show_default=True,
    help="Lowest severity to print.",
)
@_report("--json", "as_json", is_flag=True, is_eager=True, help="Print all findings as JSON.")
@_report(
    "--list-rules",
    is_flag=True,
    expose_value=False,
    callback=_list_rules,
    help="List all rules and exit.",
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
    """Check a solver with its nets, or a single net, for mistakes before training.

    SOLVER_OR_NET is any Caffe solver or net prototxt, not only one written by build-net. The
    databases of its Data layers are checked if they exist. The exit code is 3 if there are
    warnings or errors (see --fail-on).
    """
    from irv2caffe.check.run import CheckOptions, check
    from irv2caffe.config import parse_gpus

    for name in ("epochs", "lr_decay_epochs"):
        value = options[name]
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name.replace('_', '-')} must be above 0 and finite")
    report = check(
        prototxt,
        CheckOptions(
            num_gpus=0 if gpus is None else max(1, len(parse_gpus(gpus))),
            num_train=num_train_images,
            num_val=num_val_images,
            ignore=frozenset(ignore),
            cudnn=_cudnn(gpus),
            **options,
        ),
    )
    if as_json:
        ui.show_json(report.as_dict())
    else:
        _show(report, _LEVELS.index(show))
    worst = -1 if report.worst is None else int(report.worst)
    return EXIT_FINDINGS if worst >= _LEVELS.index(fail_on) else EXIT_DONE


def _cudnn(gpus: str | None) -> bool | None:
    """Whether the Caffe of this machine has cuDNN; None if unknown."""
    from irv2caffe.caffe.capability import find_caffe_for_gpus, has_cudnn
    from irv2caffe.caffe.find import find_caffe
    from irv2caffe.errors import Irv2CaffeError

    try:
        return has_cudnn(find_caffe() if gpus in {None, "none"} else find_caffe_for_gpus())
    except Irv2CaffeError:
        return None


def _show(report: Report, least: int) -> None:
    """Prints the findings, worst first, and their counts."""
    from irv2caffe.check.finding_text import finding_lines

    for line in report.summary:
        ui.show(line)
    for finding in report.findings:
        if finding.severity >= least:
            ui.show("\n" + "\n".join(finding_lines(finding)))
    counts = [
        f"{count} {name}{'' if count == 1 else 's'}"
        for name in reversed(_LEVELS)
        if (count := sum(f.severity.label == name for f in report.findings))
    ]
    if report.findings:
        ui.show("")
    ui.show(f"{', '.join(report.files)}: {', '.join(counts) or 'nothing found'}")
