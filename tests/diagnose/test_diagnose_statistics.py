"""Rules on BatchNorm's statistics: the runs that they find, and runs like them that are fine."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.diagnose_cases import DATABASES, SOLVER, TRAIN_VAL, changed, healthy, run

from irv2caffe.diagnose.diagnosis import diagnose
from irv2caffe.diagnose.finding import LIKELY, POSSIBLE
from irv2caffe.diagnose.gaps import first_pass, last_gap, least_loss
from irv2caffe.diagnose.gather import Request, gather
from irv2caffe.diagnose.imagenet import error_of_loss
from irv2caffe.log import table

BN = "moving_average_fraction: 0.95"
BATCH = changed(TRAIN_VAL, [(BN, f"use_global_stats: false {BN}")])
SLOW = changed(TRAIN_VAL, [(BN, "moving_average_fraction: 0.99999")])
WITHOUT = {"solver": SOLVER, "train_val": TRAIN_VAL}


def falling(epoch):
    return 0.25 + 2.05 * 0.86**epoch


def bad_tests(epoch):
    """Never better than twice the loss of the training."""
    return 35 + 40 * 0.9**epoch, 1.2 + 1.9 * 0.9**epoch


def names(evidence):
    return {one.rule: one for one in diagnose(evidence).findings}


@pytest.mark.parametrize("files", [{}, WITHOUT])
def test_a_healthy_run_has_no_finding(files):
    assert not names(healthy(**files))


def test_a_gap_in_the_first_epoch_is_no_overfitting():
    found = names(run(falling, bad_tests))["first-epoch-gap"]
    assert found.confidence is LIKELY
    assert "At epoch 1 the loss is 2.02 on training images and 2.91 on validation" in "".join(
        found.evidence
    )
    assert "--reestimate-bn" not in "".join(found.cure)


def test_statistics_of_the_batch_explain_the_gap():
    found = diagnose(run(falling, bad_tests, solver=SOLVER, train_val=BATCH)).findings[0]
    assert (found.rule, found.confidence) == ("first-epoch-gap", LIKELY)
    text = "".join(found.evidence)
    assert "use_global_stats: false reaches the TEST phase" in text
    assert "the TEST batch is 10" in text
    assert "remove use_global_stats: false from train_val.prototxt" in found.cure[0]


def test_statistics_of_the_batch_without_a_gap():
    found = names(healthy(solver=SOLVER, train_val=BATCH))
    assert set(found) == {"batch-statistics-in-test"}
    assert "on validation images" in found["batch-statistics-in-test"].against[0]
    large = changed(BATCH, [("batch_size: 10", "batch_size: 50")])
    found = names(healthy(solver=SOLVER, train_val=large))
    assert found["batch-statistics-in-test"].confidence is POSSIBLE


def test_nvcaffe_tests_with_running_statistics():
    root = "Root Solver performance on device 0: 16.47 * 128 = 2108 img/sec"
    lines = [f"I1124 23:59:59.500000  4242 parallel.cpp:1] {root}"]
    assert not names(healthy(solver=SOLVER, train_val=BATCH, lines=lines))


def test_a_gap_that_closes_is_none():
    def tests(epoch):
        return 12 + 78 * 0.84**epoch, 0.4 + (4 if epoch < 2 else 1.9) * 0.84**epoch

    assert "first-epoch-gap" not in names(run(falling, tests))


def test_weights_of_another_run_may_have_seen_the_images():
    lines = ["I1124 00:00:00.500000  4242 caffe.cpp:1] Finetuning from other.caffemodel"]
    evidence = run(falling, bad_tests, lines=lines)
    assert first_pass(evidence) is None
    assert last_gap(evidence).is_large


def test_errors_of_both_are_compared_where_there_are():
    """A log of the real Caffe whose training net has an accuracy."""
    gap = last_gap(gather(Request(Path(__file__).parents[1] / "files/logs/per_class.log")))
    assert (gap.what, gap.is_large) == ("top-1 error", False)
    assert gap.train == pytest.approx(87.5)


def test_a_loss_of_imagenet_goes_with_an_error():
    assert error_of_loss(1.82, "top-1 error") == pytest.approx(42.6)
    assert error_of_loss(3.06, "top-5 error") == pytest.approx(39.4, abs=0.1)
    assert error_of_loss(0.0, "top-1 error") == 0
    assert error_of_loss(50.0, "top-5 error") == 99.5
    tests = [(90.0, None, 60.3), (69.3, None, 45.5), (60.0, None, 40.0), (58.0, None, 38.0)]
    evidence = run(lambda epoch: 0.3 + 3.4 * 0.8**epoch, tests, epochs=4.0, num_classes=1000)
    found = names(evidence)["first-epoch-gap"]
    assert "which goes with a top-1 error of about" in found.evidence[0]
    assert "10 points" in found.against[0]


def test_errors_have_a_least_loss():
    row = table.TestRow(1, None, 0, 50.8, 26.6, None)
    assert least_loss(row) == pytest.approx(0.644, abs=1e-3)  # .266 ln 6 + .242 ln 2
    assert last_gap(run(lambda _: 0.1, [50.0, 50.0, 50.0, 50.0])).is_large
    assert not last_gap(run(lambda _: 0.5, [50.0, 50.0, 50.0, 50.0])).is_large


def test_running_statistics_lag_in_a_short_run():
    def tests(epoch):
        return (60.0, 5.0) if 5 < epoch < 9 else (12 + 78 * 0.84**epoch, 0.4 + 1.9 * 0.84**epoch)

    found = names(run(falling, tests, solver=SOLVER, train_val=SLOW))["running-statistics"]
    assert found.confidence is LIKELY
    assert "at times" in found.symptom
    assert "moving_average_fraction 0.99999 averages over" in found.evidence[-1]
    assert "moving_average_fraction" in found.cure[0]
    fine = healthy(solver=SOLVER, train_val=SLOW)
    assert "running-statistics" not in names(fine)


def test_tests_that_jump_while_the_training_is_calm():
    def tests(epoch):
        return (70.0, 4.5) if round(epoch) % 3 == 0 else (12 + 78 * 0.84**epoch, 0.5)

    unknown = run(
        lambda share: falling(30 * share),
        lambda share: tests(30 * share),
        batch=None,
        num_train=None,
        iterations=60_000,
    )
    found = names(unknown)["running-statistics"]
    assert found.confidence is POSSIBLE
    assert "Whether the net has BatchNorm" in found.against[-1]
    assert "moving_average_fraction: 0.95" in found.cure[0]
    known = names(run(falling, tests, solver=SOLVER, train_val=TRAIN_VAL))["running-statistics"]
    assert "moving_average_fraction is low enough" in known.cure[0]
    assert names(run(falling, tests, **WITHOUT))["running-statistics"].confidence is LIKELY


def test_a_training_that_jumps_too_is_not_about_statistics():
    def losses(epoch):
        return falling(epoch) + (2.0 if round(epoch) % 3 == 0 else 0.0)

    def tests(epoch):
        return (70.0, 4.5) if round(epoch) % 3 == 0 else (12 + 78 * 0.84**epoch, 0.5)

    found = names(run(losses, tests, num_displays=600))
    assert "rose from" not in "".join(
        text for one in found.values() if one.rule == "running-statistics" for text in one.evidence
    )


def test_a_net_without_batch_norm_has_no_running_statistics():
    def tests(epoch):
        return (70.0, 4.5) if round(epoch) % 3 == 0 else (12 + 78 * 0.84**epoch, 0.5)

    plain = re.sub(r'layer \{\n  name: "[^"]*" type: "(?:BatchNorm|Scale)".*?\n\}\n', "",
                   TRAIN_VAL, flags=re.DOTALL)  # fmt: skip
    assert "BatchNorm" not in plain
    assert "running-statistics" not in names(run(falling, tests, solver=SOLVER, train_val=plain))


def test_statistics_that_are_never_computed():
    kept = changed(TRAIN_VAL, [(BN, f"use_global_stats: true {BN}")])
    stuck = run(lambda _: 2.3026, lambda _: (90.0, 2.3026), solver=SOLVER, train_val=kept)
    found = names(stuck)["frozen-statistics"]
    assert found.confidence is LIKELY
    assert "1/sqrt(eps)" in found.cause
    assert "frozen-statistics" not in names(healthy(**WITHOUT))
    lines = ["I1124 00:00:00.500000  4242 caffe.cpp:1] Finetuning from other.caffemodel"]
    finetuned = healthy(solver=SOLVER, train_val=kept, lines=lines)
    assert "frozen-statistics" not in names(finetuned)


def test_validation_images_in_the_order_of_their_classes():
    """A TEST batch with its own statistics then shows one class."""
    found = names(run(falling, bad_tests, solver=SOLVER, train_val=BATCH))["first-epoch-gap"]
    assert "come class by class" in "".join(found.evidence)
    mixed = {"val_lmdb": replace(DATABASES["val_lmdb"], order="shuffled")}
    found = names(run(falling, bad_tests, solver=SOLVER, train_val=BATCH, databases=mixed))
    assert "class by class" not in "".join(found["first-epoch-gap"].evidence)


def test_other_classes_in_validation_are_another_reason():
    """With few images of most classes in training, the losses of both cannot be compared."""
    rare = replace(DATABASES["train_lmdb"], num_records=1600, class_counts=(700, 700, *[25] * 8))
    found = names(run(falling, bad_tests, databases={"train_lmdb": rare}, **WITHOUT))
    assert "class-imbalance" in found
    assert not {"first-epoch-gap", "running-statistics"} & set(found)


def test_the_public_run_of_2016():
    """The order of its causes that the curves and the published files support."""
    findings = diagnose(gather(Request(Path("original-2016")))).findings
    rules = [(one.rule, one.confidence) for one in findings]
    assert rules[:2] == [("first-epoch-gap", LIKELY), ("overfitting", LIKELY)]
    assert all(confidence <= POSSIBLE for _, confidence in rules[2:])
    assert {"fixed-order", "unchecked-databases"} <= {rule for rule, _ in rules[2:4]}
    first, second = findings[:2]
    assert "goes with a top-5 error of about 39 % on ImageNet" in first.evidence[0]
    assert "132 BatchNorm layer(s)" in "".join(first.evidence)
    assert "From epoch 10 to epoch 25 the training loss fell from 0.99 to 0.32" in "".join(
        second.evidence
    )
    assert "crop and mirror are the only augmentation" in second.cause


@pytest.mark.parametrize("name", ["lim0606", "twtygqyy"])
def test_public_runs_that_did_it_right(name):
    solver = Path(__file__).parents[2] / "templates" / name / "solver.prototxt"
    for given in (None, solver):
        found = names(gather(Request(Path(name), solver=given)))
        assert not [one for one in found.values() if one.confidence >= POSSIBLE]


LOGS = sorted((Path(__file__).parents[1] / "files/logs").glob("*.log"))


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_logs_of_the_real_caffe(log):
    rules = {"first-epoch-gap", "running-statistics", "overfitting", "badly-mixed", "past-best"}
    assert not rules & set(names(gather(Request(log))))


def test_a_net_without_batch_norm_differs_by_its_images():
    found = names(run(falling, bad_tests))["first-epoch-gap"]  # the log shows such a net
    assert "BatchNorm" not in found.cause
    small = changed(TRAIN_VAL, [("batch_size: 16", "batch_size: 4")])
    found = names(run(falling, bad_tests, solver=SOLVER, train_val=small))["first-epoch-gap"]
    assert "BatchNorm's running statistics" in found.cause
    assert "BatchNorm over 4 image(s)" in "".join(found.evidence)
