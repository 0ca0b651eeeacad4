"""The options of diagnose, by section."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from irv2caffe import ui
from irv2caffe.cli.model_options import ENGINE_OPTIONS
from irv2caffe.cli.option_sections import section

if TYPE_CHECKING:
    from irv2caffe.diagnose.registry import Rule

LEVELS = ("unlikely", "possible", "likely", "measured")  # by Confidence
_files = section("Files")
_model = section("Tests of the model")
_out = section("Output files")
_other = section("Other")
_PATH = click.Path(path_type=Path)


def _list_rules(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Lists the rules and exits."""
    if not wanted:
        return
    import irv2caffe.diagnose.rules  # noqa: F401  registers the rules
    from irv2caffe.diagnose.registry import RULES

    if ctx.params.get("as_json"):
        keys = ("name", "topic", "summary", "needs", "settled_by")
        ui.show_json([{key: getattr(each, key) for key in keys} for each in RULES.values()])
    else:
        rows = [(each.name, _needs(each), each.summary) for each in RULES.values()]
        ui.show_table(("rule", "needs", "finds"), rows)
    ctx.exit()


def _needs(rule: Rule) -> str:
    return ", ".join(rule.needs)


DIAGNOSE_OPTIONS = (
    _files(
        "--solver",
        type=_PATH,
        metavar="FILE",
        help="Solver of the run, or its net.  [default: that of the run folder, or as the log "
        "printed it]",
    ),
    _files(
        "--train-lmdb",
        type=_PATH,
        metavar="DB",
        help="Training database instead of the one that the net names.",
    ),
    _files(
        "--val-lmdb",
        type=_PATH,
        metavar="DB",
        help="Validation database instead of the one that the net names.",
    ),
    _files(
        "--num-train-images",
        type=click.IntRange(1, 10**12),
        metavar="N",
        help="Number of training images, which make one epoch.  [default: from the run folder, "
        "the headers that build-net writes, the log or the database]",
    ),
    _files(
        "--images-per-iteration",
        type=click.IntRange(1, 10**9),
        metavar="N",
        help="Training images per iteration: batch size x GPUs x iter_size.  [default: from the "
        "log or the solver]",
    ),
    _model(
        "--model",
        metavar="best|last|N|FILE",
        help="Test a model of the run too: the best by its tests, the last, that of iteration N, "
        "or a .caffemodel.",
    ),
    _model(
        "--net",
        type=_PATH,
        metavar="FILE",
        help="Net that the model was trained with.  [default: that of the run or of --solver]",
    ),
    _model(
        "--limit",
        type=click.IntRange(min=1),
        default=1000,
        show_default=True,
        metavar="N",
        help="Validation images, and as many training images, chosen at random.",
    ),
    _model(
        "--seed",
        type=click.IntRange(min=0),
        default=1,
        show_default=True,
        metavar="N",
        help="Seed of the choice of images.",
    ),
    *ENGINE_OPTIONS,
    _out(
        "--html",
        "html_file",
        type=_PATH,
        metavar="FILE",
        help="HTML page with the diagnosis and the curves.",
    ),
    _out("--force", is_flag=True, help="Overwrite a file that irv2caffe did not make."),
    _other("--ignore", multiple=True, metavar="RULE", help="Rule to skip.  Repeatable."),
    _other(
        "--show",
        type=click.Choice(LEVELS),
        default="unlikely",
        show_default=True,
        help="Lowest confidence to print.",
    ),
    _other(
        "--fail-on",
        type=click.Choice(LEVELS[1:]),
        default="likely",
        show_default=True,
        help="Lowest confidence that gives exit code 3.",
    ),
    _other("--json", "as_json", is_flag=True, is_eager=True, help="Print everything as JSON."),
    _other(
        "--list-rules",
        is_flag=True,
        expose_value=False,
        callback=_list_rules,
        help="List all rules and exit.",
    ),
)
