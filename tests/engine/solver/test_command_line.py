"""The command line of the engine's own program."""

from __future__ import annotations

import pytest

from irv2caffe.engine.command import engine_options, parser
from irv2caffe.errors import UsageError


def parse(*options):
    return parser().parse_args(["train", "-solver", "solver.prototxt", *options])


@pytest.mark.parametrize(
    "options",
    [
        ("--nnodes", "0"),
        ("--workers", "0"),
        ("--data-threads", "-1"),
        ("--ema", "1"),
        ("--precision", "bf16", "--exact"),
        ("-snapshot", "a.solverstate", "-weights", "b.caffemodel"),
    ],
)
def test_values_out_of_range_and_against_each_other_are_refused(options):
    with pytest.raises(UsageError):
        engine_options(parse(*options))


def test_every_option_has_a_help_text():
    train = next(a for a in parser()._subparsers._group_actions).choices["train"]
    assert [action.dest for action in train._actions if not action.help] == []
    engine_options(parse())
