"""Rules on losses that are no numbers, saturated, or those of guessing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from helpers.diagnose_cases import SOLVER, TRAIN_VAL, changed, healthy, run

import irv2caffe.diagnose.rules  # noqa: F401 - registers them
from irv2caffe.diagnose.finding import LIKELY, MEASURED, POSSIBLE
from irv2caffe.diagnose.measured import Measured
from irv2caffe.diagnose.registry import RULES, run_rules
from irv2caffe.log.table import PINNED_LOSS

BROKEN = [2.3, 2.1, 2.0, *[math.nan] * 20]
BACK = [2.3 - 0.02 * place for place in range(60)] + [math.log(10)] * 60


def found(evidence):
    """The findings of these rules, by rule."""
    rules = [each for each in RULES.values() if each.topic == "numerics"]
    return {one.rule: one for one in run_rules(evidence, rules)}


def test_a_loss_that_is_no_number():
    finding = found(run(losses=BROKEN))["not-a-number"]
    assert finding.confidence == LIKELY
    assert finding.symptom == "The loss is not a number since epoch 3.91."
    assert "--model" in finding.decide
    assert "debug_info: true" in finding.cure[-1]


def test_the_first_layer_that_is_not_finite():
    measured = Measured(weights="last.caffemodel", first_bad_layer="conv7")
    finding = found(replace(run(losses=BROKEN), measured=measured))["not-a-number"]
    assert finding.confidence == MEASURED
    assert "conv7 is the first layer whose output is not finite" in finding.evidence[1]
    assert not finding.decide
    measured = Measured(weights="last.caffemodel", bad_weights=("a", "b", "c", "d", "e"))
    finding = found(replace(run(losses=BROKEN), measured=measured))["not-a-number"]
    assert finding.confidence == MEASURED
    assert "The weights of a, b, c and 2 more are not finite." in finding.evidence


# What Caffe 1.0 printed for two layers at a rate of 1e30, in the iteration of its first NaN.
DEBUG = """\
I1127 11:37:55.347310 32069 net.cpp:593]     [Forward] Layer conv1, top blob conv1 data: 6.309e+29
I1127 11:37:55.347313 32069 net.cpp:605]     [Forward] Layer conv1, param blob 0 data: 1.20922e+29
I1127 11:37:55.347320 32069 net.cpp:593]     [Forward] Layer fc, top blob fc data: inf
I1127 11:37:55.347321 32069 net.cpp:593]     [Forward] Layer loss, top blob loss data: -nan
I1127 11:37:55.347322 32069 net.cpp:621]     [Backward] Layer loss, bottom blob fc diff: nan
"""


def test_the_first_layer_in_a_log_with_debug_info(tmp_path):
    evidence = run(losses=BROKEN, lines=DEBUG.splitlines(), folder=tmp_path)
    finding = found(evidence)["not-a-number"]
    assert finding.confidence == MEASURED
    assert finding.cause == "The numbers break in the forward pass of fc."
    assert finding.evidence[-1].endswith(": [Forward] Layer fc, top blob fc data: inf")
    assert not any("debug_info: true" in text for text in finding.cure)
    later = DEBUG.replace("1.20922e+29", "nan").replace("6.309e+29", "nan").splitlines()
    finding = found(run(losses=BROKEN, lines=later, folder=tmp_path))["not-a-number"]
    assert finding.confidence == LIKELY
    assert finding.cause.startswith("An update before that line broke the weights")
    assert "debug_info: true" in finding.cure[-1]
    (tmp_path / "train.log").unlink()
    evidence = replace(evidence)
    assert found(evidence)["not-a-number"].confidence == LIKELY


def test_a_loss_that_is_no_number_before_any_update():
    finding = found(run(losses=[math.nan] * 20))["not-a-number"]
    assert "before any update" in finding.cause
    assert "inspect-lmdb" in finding.cure[0]


def test_tests_that_are_perfect_because_of_nan():
    tests = [{"accuracy": 1.0, "loss": (1.0, math.nan)}] * 5
    finding = found(run(tests=tests))["not-a-number"]
    assert "The accuracy is exactly 1" in finding.evidence[0]


def test_a_saturated_softmax():
    later = found(run(losses=[2.3, 2.1, *[PINNED_LOSS] * 20]))["softmax-saturated"]
    assert later.confidence == LIKELY
    assert "have grown beyond measure" in later.cause
    first = found(run(losses=[PINNED_LOSS] * 20))["softmax-saturated"]
    assert "before any update" in first.cause
    assert "transform_param" in first.cure[0]


def test_a_net_that_never_learns():
    stuck = {"losses": lambda _: math.log(10), "noise": 0.005, "tests": lambda _: (90.0, 2.303)}
    finding = found(run(**stuck))["loss-at-guessing"]
    assert finding.confidence == POSSIBLE
    assert "which is guessing among 10 classes" in finding.evidence[0]
    assert finding.evidence[1] == "The test error is 90.0 %; guessing has 90.0 %."
    assert "--model" in finding.decide
    # A setting of the files that cannot learn is seen directly.
    fillers = changed(TRAIN_VAL, [('weight_filler { type: "msra" }', "")])
    finding = found(run(**stuck, solver=SOLVER, train_val=fillers))["loss-at-guessing"]
    assert finding.confidence == MEASURED
    assert "weight_filler of a Convolution is missing" in finding.cause
    assert "Found in conv1 (" in finding.evidence[1]


def test_a_net_that_died_at_once():
    tests = [{"accuracy": 0.0, "loss": (1.0, 2.30259)}] * 8
    finding = found(run(losses=[80.8, *[2.30259] * 60], tests=tests))["loss-at-guessing"]
    assert finding.confidence == LIKELY
    constant, first, error = finding.evidence[1:]
    assert constant == "The loss is 2.30259 in every display: all outputs are equal."
    assert first.startswith("The loss was 80.8 at first, 35 times that of guessing: ")
    assert error == "The test error is exactly 100 %: Caffe counts equal outputs as wrong."
    # A loss that is close to it is that of a net that learns slowly; far above it, of neither.
    near = found(run(losses=[2.30252] * 60, tests=lambda _: 89.5))["loss-at-guessing"]
    assert near.confidence == POSSIBLE
    assert "loss-at-guessing" not in found(run(losses=[36.0] * 60, tests=lambda _: 89.5))


def test_a_net_that_forgets_all():
    finding = found(run(losses=BACK, tests=lambda _: 60.0))["loss-collapsed"]
    assert finding.confidence == POSSIBLE
    assert finding.evidence == (
        "The loss had fallen to 1.17; it is 2.3 now, which is guessing among 10 classes.",
    )
    assert "--model" in finding.decide
    # Outputs of tests that collapse alone are another matter.
    tests = [{"accuracy": 0.7 if place < 20 else 0.1} for place in range(30)]
    assert "loss-collapsed" not in found(run(tests=tests))


@pytest.mark.parametrize("files", [{}, {"solver": SOLVER}])
def test_nothing_on_a_healthy_run(files):
    assert not found(healthy(**files))
    assert not found(run(losses=[]))
    assert not found(run(losses=[2.3, 2.2]))
