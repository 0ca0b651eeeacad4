"""The figure and the report of logs that tell other things than top-1 and top-5."""

from __future__ import annotations

import json
import re

import pytest
from helpers.log_lines import display, lines_of_test, run_of

from irv2caffe.log.read.reader import read_lines
from irv2caffe.log.table import make_table
from irv2caffe.plot.curves import Run
from irv2caffe.plot.figure import figure
from irv2caffe.plot.report import write_report


def run(lines, name="run"):
    log = read_lines(lines)
    return Run(name, make_table(log), log)


def drawn(made):
    return {line.get_label(): line for axis in made.axes for line in axis.get_lines()}


LOSSES = [3.0, 2.0, 1.5, 1.25]
MAP = run_of(LOSSES, [{"detection_eval": place / 10} for place in range(4)])
LOSS_ONLY = run_of(LOSSES, [{"loss": (1, 3 - place / 4)} for place in range(4)])
VECTOR = run_of(LOSSES, [{"accuracy": [0.84, 0.65, 0.58]} for _ in range(4)])
MIXED = run_of(LOSSES, [{"accuracy": 0.5, "mIoU": 0.25, "loss": (1, 2.0)} for _ in range(4)])
TRAIN_ONLY = [
    line
    for place, loss in enumerate(LOSSES)
    for line in display(10 * place, loss, outputs={"accuracy": place / 4, "loss": (1, loss)})
]
HEADS = [
    line
    for place in range(4)
    for line in (
        *lines_of_test(
            10 * place, {"loss1/loss1": (0.3, 5.0), "loss3/loss3": (1, 4.0), "loss3/top-1": 0.25}
        ),
        *display(10 * place, 5.5, outputs={"loss1/loss1": (0.3, 5.0), "loss3/loss3": (1, 4.0)}),
    )
]


def test_a_score_stands_on_the_left():
    made = figure([run(MAP)])
    line = drawn(made)["test detection_eval (last 0.3, best 0.3)"]
    assert line.axes is made.axes[0]
    assert list(line.get_ydata()) == [0.0, 0.1, 0.2, 0.3]
    assert made.axes[0].get_ylabel() == "detection_eval"
    assert len(made.axes[0].get_yticks())


def test_a_test_loss_stands_beside_the_training_loss():
    made = figure([run(LOSS_ONLY)])
    line = drawn(made)["validation loss (last 2.25, best 2.25)"]
    assert line.axes is drawn(made)["training loss"].axes
    assert line.axes.get_ylabel() == "loss"
    assert made.axes[0].get_ylabel() == ""  # there are tests


def test_elements_and_heads_are_lines_of_their_own():
    labels = drawn(figure([run(VECTOR)]))
    assert {
        "validation error of accuracy[0] (last 16, best 16 %)",
        "validation error of accuracy[2] (last 42, best 42 %)",
    } <= set(labels)
    labels = drawn(figure([run(HEADS)]))
    assert {
        "validation top-1 error (last 75.0, best 75.0 %)",
        "validation loss1/loss1 (last 5, best 5)",
        "validation loss3/loss3 (last 4, best 4)",
        "training loss1/loss1 (one batch, averaged)",
    } <= set(labels)


def test_training_accuracy_has_numbers_on_its_axis():
    made = figure([run(TRAIN_ONLY)])
    line = drawn(made)["training error of accuracy (one batch, averaged)"]
    assert list(line.get_ydata()) == [100, 75, 50, 25]
    assert made.axes[0].get_ylabel() == "training error (%)"
    assert len(made.axes[0].get_yticks())
    assert not any("loss (one batch" in label for label in drawn(made))  # that is the displayed one


def test_errors_and_scores_do_not_share_a_scale():
    made = figure([run(MIXED)])
    labels = drawn(made)
    assert labels["validation top-1 error (last 50.0, best 50.0 %)"].axes is made.axes[0]
    assert labels["test mIoU (last 0.25, best 0.25)"].axes not in made.axes[:1]
    assert labels["test mIoU (last 0.25, best 0.25)"].axes.get_ylabel() == "mIoU"
    assert "validation loss (last 2, best 2)" in labels


def test_only_what_has_no_tests_says_so():
    for lines in (MAP, LOSS_ONLY, VECTOR, MIXED, TRAIN_ONLY, HEADS):
        labels = [axis.get_ylabel() for axis in figure([run(lines)]).axes]
        assert "no test results yet" not in labels
    assert figure([run(run_of(LOSSES))]).axes[0].get_ylabel() == "no test results yet"


@pytest.mark.parametrize("lines", [MAP, LOSS_ONLY, VECTOR, TRAIN_ONLY])
def test_nothing_is_called_top1_that_is_not(lines, tmp_path):
    assert not any("top-1" in label for label in drawn(figure([run(lines)])))
    write_report([run(lines)], tmp_path / "r.html")
    assert "top-1" not in (tmp_path / "r.html").read_text()


def test_several_runs_of_scores_are_compared():
    labels = drawn(figure([run(MAP, "a"), run(MAP, "b")]))
    assert {
        "a: test detection_eval (last 0.3, best 0.3)",
        "b: test detection_eval (last 0.3, best 0.3)",
    } <= set(labels)


def test_more_outputs_than_can_be_told_apart():
    lines = run_of(LOSSES, [{f"ap_{number}": 0.5 for number in range(60)}] * 4)
    labels = drawn(figure([run(lines)]))
    assert sum(label.startswith("test ap_") for label in labels) == 12
    assert "48 more outputs: --html and --csv have them" in labels


def test_the_report_has_every_output(tmp_path):
    write_report([run(MIXED)], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    data = json.loads(re.search(r'id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    panels = {curve["name"]: (curve["panel"], curve["side"]) for curve in data["curves"]}
    assert panels["validation top-1 error"] == ("main", "left")
    assert panels["test mIoU"] == ("value", "left")
    assert panels["validation loss"] == ("main", "right")
    assert data["labels"]["main"]["right"] == "loss"
    assert "test mIoU" in [entry["name"] for entry in data["legend"]]
    write_report([run(MAP)], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    data = json.loads(re.search(r'id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    assert {curve["panel"] for curve in data["curves"]} == {"main", "lr"}
