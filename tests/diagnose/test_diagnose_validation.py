"""Rules on what tests show: the runs that they find, and runs like them that are fine."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from helpers.diagnose_cases import DATABASES, SOLVER, TRAIN_VAL, changed, healthy, run
from helpers.log_lines import display, lines_of_test

from irv2caffe.diagnose.diagnosis import diagnose
from irv2caffe.diagnose.finding import LIKELY, MEASURED, POSSIBLE
from irv2caffe.diagnose.gaps import last_gap
from irv2caffe.diagnose.gather import Request, gather
from irv2caffe.diagnose.trust import half_width

FILES = {"solver": SOLVER, "train_val": TRAIN_VAL}
PLAIN = changed(TRAIN_VAL, [("mirror: true crop_size: 27", "")])


def memorizing(epoch):
    return 0.01 + 2.3 * 0.8**epoch


def flat(epoch):
    """As good as the training for some epochs, then no better."""
    return 40 + 50 * 0.7**epoch, max(2.3 * 0.8**epoch, 1.3) + 0.02 * epoch


def names(evidence):
    return {one.rule: one for one in diagnose(evidence).findings}


def test_a_net_that_memorizes_its_images():
    found = names(run(memorizing, flat))["overfitting"]
    assert found.confidence is LIKELY
    assert "the training loss fell from" in found.evidence[0]
    assert not found.against
    assert any("--augment inception" in cure for cure in found.cure)
    assert "overfitting" not in names(healthy())


def test_files_say_why_it_can_memorize():
    solver = changed(SOLVER, [("weight_decay: 0.0001", "weight_decay: 0")])
    found = names(run(memorizing, flat, solver=solver, train_val=PLAIN))["overfitting"]
    assert "neither a random crop nor a mirror" in found.cause
    assert "weight_decay" in found.evidence[-1]
    assert "weight-decay" not in names(run(memorizing, flat, solver=solver, train_val=PLAIN))
    assert any("weight_decay: 0.00004" in cure for cure in found.cure)


def test_a_run_that_was_augmented_needs_no_augmentation():
    config = {"torch": {"options": {"augment": "inception"}}}
    found = names(run(memorizing, flat, config=config, is_run=True, solver=SOLVER,
                      train_val=TRAIN_VAL))["overfitting"]  # fmt: skip
    assert not any("--augment" in cure for cure in found.cure)


def test_a_rising_test_loss_is_enough():
    found = names(run(memorizing, lambda epoch: (40 + 50 * 0.96**epoch, 1.2 + abs(epoch - 6) / 8)))
    assert "of the test rises" in "".join(found["overfitting"].evidence)


def test_a_few_epochs_memorize_little():
    assert "overfitting" not in names(run(memorizing, flat, epochs=3.0))


def test_validation_that_was_bad_at_once_is_not_overfitting():
    def bad(_):
        return 60.0, 3.2

    found = names(run(lambda epoch: 0.9 + 1.4 * 0.5**epoch, bad))
    assert "overfitting" not in found
    assert "first-epoch-gap" in found


def test_both_where_the_training_goes_on_for_long():
    """As the public run of 2016: bad in the first epoch, and memorizing since."""

    def tests(epoch):
        return 51 + 40 * 0.6**epoch, 2.9 + 0.6 * 0.7**epoch

    rules = list(names(run(lambda epoch: 0.05 + 2.25 * 0.8**epoch, tests)))
    assert rules[:2] == ["first-epoch-gap", "overfitting"]


def test_validation_better_than_training_is_normal():
    """Strong augmentation makes training images harder than those of tests."""
    assert not names(run(lambda epoch: 1.2 + 1.1 * 0.8**epoch, lambda epoch: (
        20 + 70 * 0.8**epoch, 0.7 + 1.6 * 0.8**epoch)))  # fmt: skip


def test_the_best_test_was_long_ago():
    def tests(epoch):
        return 20 + 70 * 0.6**epoch + max(0.0, epoch - 15) * 1.2, 0.9

    found = names(run(lambda epoch: 0.8 + 1.5 * 0.8**epoch, tests))["past-best"]
    assert "points worse" in found.symptom
    assert found.confidence is POSSIBLE
    done = ["I1124 23:59:59.500000  4242 caffe.cpp:1] Optimization Done."]
    found = names(run(lambda epoch: 0.8 + 1.5 * 0.8**epoch, tests, lines=done))["past-best"]
    assert found.confidence is LIKELY
    assert "past-best" not in names(healthy())


def test_a_best_test_by_chance_is_none():
    def tests(epoch):
        return 20 + 70 * 0.6**epoch + max(0.0, epoch - 15) * 0.5, 0.9

    few = changed(SOLVER, [("test_iter: 100", "test_iter: 5")])
    for solver, is_found in ((SOLVER, True), (few, False)):
        found = names(run(lambda epoch: 0.8 + 1.5 * 0.8**epoch, tests, solver=solver,
                          train_val=TRAIN_VAL))  # fmt: skip
        assert ("past-best" in found) == is_found


def test_the_interval_of_an_error_is_the_binomial_one():
    evidence = healthy(**FILES)
    assert evidence.num_val_images == 1000
    assert half_width(evidence, 50.0) == pytest.approx(100 * 1.96 * math.sqrt(0.25 / 1004))
    assert half_width(evidence, 0.0) > 0.1
    assert half_width(run(batch=None, num_train=None, iterations=100), 50.0) is None


def test_tests_of_few_images():
    few = changed(SOLVER, [("test_iter: 100", "test_iter: 5")])

    def of_tests(tests):
        val = {"val_lmdb": replace(DATABASES["val_lmdb"], order="shuffled")}
        return names(healthy(tests=tests, solver=few, train_val=TRAIN_VAL, databases=val))

    def late_rise(epoch):
        return 20 + 70 * 0.6**epoch + max(0.0, epoch - 15) * 0.5, 0.9

    found = of_tests(lambda epoch: (30 + 5 * math.sin(9 * epoch), 0.9))["few-test-images"]
    assert found.confidence is POSSIBLE  # they differ by too little to be misread
    assert "A test is of 50 images" in found.symptom
    assert "the validation set has 1,000" in "".join(found.evidence)
    found = of_tests(late_rise)["few-test-images"]
    assert found.confidence is LIKELY  # the best test is the best by chance
    assert "few-test-images" not in names(healthy(**FILES))


def test_tests_without_an_error_leave_nothing_to_compare():
    few = changed(SOLVER, [("test_iter: 100", "test_iter: 2")])
    twenty = {"val_lmdb": replace(DATABASES["val_lmdb"], num_records=20)}
    for error, is_found in ((0.0, False), (5.0, False), (35.0, True)):
        found = names(healthy(tests=[(90.0, 2.3), *[(error, 0.1)] * 7], solver=few,
                              train_val=TRAIN_VAL, databases=twenty))  # fmt: skip
        assert ("few-test-images" in found) == is_found
        if is_found:
            assert found["few-test-images"].confidence is POSSIBLE


def test_tests_of_a_part_of_the_images():
    val = replace(DATABASES["val_lmdb"], num_records=50_000, order="shuffled")
    many = {"val_lmdb": val}
    found = names(healthy(databases=many, **FILES))["few-test-images"]
    assert found.confidence is POSSIBLE
    in_order = {"val_lmdb": replace(val, order="sorted")}
    found = names(healthy(databases=in_order, **FILES))["few-test-images"]
    assert found.confidence is MEASURED
    assert "of other classes than the one before" in found.evidence[-1]


def test_a_run_without_tests():
    solver = changed(SOLVER, [("test_interval: 2000", "test_interval: 90000")])
    found = names(run(lambda epoch: 0.3 + 2 * 0.8**epoch, solver=solver, train_val=TRAIN_VAL))
    assert "longer than the run" in found["no-tests"].cause
    assert "no-tests" not in names(run(lambda epoch: 0.3 + 2 * 0.8**epoch, **FILES))


def test_an_accuracy_of_a_net_that_is_nan():
    tests = [(50.0, 1.5), (0.0, math.nan), (0.0, math.nan)]
    found = names(run([2.0, 1.5, 1.0, 0.9, 0.8], tests))
    assert "comparisons with NaN" in found["perfect-accuracy"].cause
    assert "overfitting" not in found
    diverged = names(run([2.0, 1.5, 1.0, math.nan, math.nan], tests))
    assert "perfect-accuracy" not in diverged


def test_a_regression_whose_test_loss_rises():
    """It has no error; the loss of its tests is enough."""
    tests = [
        {"loss": (1.0, 4.0 - place / 4 if place < 8 else 2 + place / 4)} for place in range(30)
    ]
    found = names(run(lambda epoch: 0.1 + 4 * 0.8**epoch, tests))["overfitting"]
    assert "of the test rises" in found.evidence[0]
    fine = [{"loss": (1.0, 0.2 + 4 * 0.8**place)} for place in range(30)]
    assert not names(run(lambda epoch: 0.1 + 4 * 0.8**epoch, fine))


def test_the_main_head_is_compared(tmp_path):
    """The last loss of the tests is that of an auxiliary head here."""
    lines = []
    for step in range(0, 1000, 10):
        if step % 200 == 100:
            heads = {"accuracy": 0.8, "main": (1.0, 0.6), "aux": (0.3, 4.0)}
            lines += lines_of_test(step, heads)
        lines += display(step, 1.7, outputs={"main": (1.0, 0.5), "aux": (0.3, 4.0)})
    (tmp_path / "log").write_text("\n".join(lines) + "\n")
    gap = last_gap(gather(Request(tmp_path / "log")))
    assert (gap.train, gap.val) == (pytest.approx(0.5), pytest.approx(0.6))
