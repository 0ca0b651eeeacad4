"""Rules on rates, solvers, numbers and scaling: published curves, and logs of real Caffe."""

from __future__ import annotations

from pathlib import Path

import pytest

import irv2caffe.diagnose.rules  # noqa: F401 - registers them
from irv2caffe.diagnose.finding import LIKELY, POSSIBLE, UNLIKELY
from irv2caffe.diagnose.gather import Request, gather
from irv2caffe.diagnose.registry import RULES, run_rules

LOGS = sorted((Path(__file__).parent.parent / "files/logs").glob("*.log"))
TOPICS = {"learning_rate", "schedule", "optimizer", "numerics", "scaling"}


def found(source):
    rules = [each for each in RULES.values() if each.topic in TOPICS]
    return run_rules(gather(Request(Path(source))), rules)


def test_the_original_run_has_contributing_causes_and_no_dead_units():
    findings = found("original-2016")
    assert [(one.rule, one.confidence) for one in findings] == [
        ("weight-decay", POSSIBLE),
        ("momentum-missing", POSSIBLE),
        ("learning-rate-not-lowered", POSSIBLE),
        ("residual-scaling", UNLIKELY),
    ]
    # The loss of 0.25 epochs is the first one that was read off its plot.
    assert findings[-1].against[0] == (
        "The training loss fell from 5.2 to 0.32, and a dead last layer would keep it at 6.91."
    )
    assert "15 branches of more than 1,000 channels" in findings[-1].evidence[0]
    assert "0.0007 per image" in findings[1].evidence[1]
    assert "from 0.87 to" in findings[2].against[0]


@pytest.mark.parametrize("name", ["lim0606", "twtygqyy"])
def test_published_runs_that_went_well_have_none(name):
    assert not found(name)


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.stem)
def test_logs_of_real_caffe(log):
    likely = [one.rule for one in found(log) if one.confidence >= LIKELY]
    wanted = ["not-a-number", "learning-rate-too-high"] if log.stem == "nan" else []
    assert likely == wanted
