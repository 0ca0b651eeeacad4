"""Rules on the tests of a model: what each finds, what it rules out, and when it is silent."""

from dataclasses import replace
from typing import Any

import pytest
from helpers.diagnose_cases import SOLVER, TRAIN_VAL, healthy

from irv2caffe.diagnose.diagnosis import diagnose
from irv2caffe.diagnose.finding import LIKELY, MEASURED, POSSIBLE, UNLIKELY, Finding
from irv2caffe.diagnose.measured import (
    BlockActivity,
    InputStatistics,
    LabelMatch,
    LabelMix,
    LayerActivity,
    Measured,
    Score,
)
from irv2caffe.diagnose.registry import RULES, Rule, run_rules

MIXED = LabelMix(16, 200, chi_square=9.1, expected=8.9, sigma=0.3, far=0.0)
SORTED = LabelMix(16, 200, chi_square=140.0, expected=8.9, sigma=0.3, far=1.0)
GRAY = InputStatistics((0.1, 0.1), (0.7, 0.7), (0.02, 0.02), 256)
BRIGHT = InputStatistics((0.9, 0.9), (0.7, 0.7), (0.02, 0.02), 256)


def score(error, num_images=1000, **more):
    return Score(error, 1.0, num_images, **more)


def relu(num_dead, name="relu", channels=64):
    return LayerActivity(name, channels, num_dead, 0.5)


# A healthy model: validation a little worse than training, nothing else.
FINE = Measured(
    weights="net_iter_60000.caffemodel",
    iteration=60_000,
    val=score(12.0),
    train=score(9.0),
    as_trained=score(9.5),
    reestimated=score(12.1),
    reestimated_train=score(9.1),
    num_reestimate_batches=60,
    activations=(relu(0), relu(3, "last")),
    num_activity_images=128,
    gradient_norm=1.0,
    num_gradient_images=16,
    train_input=GRAY,
    val_input=GRAY,
    label_mix=MIXED,
    labels=LabelMatch(same_table=True, distance=0.0, shift_error=12.0, renamed_error=12.0),
)
BY_BATCH = tuple(zip((1, 2, 4, 8, 16), map(score, (84.0, 76.7, 38.7, 27.3, 21.7)), strict=True))


def found(name, **changes):
    """The findings of a rule for a model that is fine but for some values."""
    evidence = replace(healthy(), measured=replace(FINE, **changes))
    return [replace(one, rule=name) for one in RULES[name].find(evidence)]


def settled(name, confidence, **changes):
    """The finding of a rule, and that it takes the place of one that it settles."""
    (one,) = found(name, **changes)
    assert one.confidence == confidence
    assert one.settles
    assert set(one.settles) <= set(RULES)
    return one


def words(one):
    return " ".join((one.symptom, one.cause, *one.evidence, *one.against, *one.cure))


def test_nothing_is_found_in_a_healthy_model():
    evidence = healthy(solver=SOLVER, train_val=TRAIN_VAL)
    findings = diagnose(replace(evidence, measured=FINE)).findings
    assert [one.rule for one in findings if one.rule.startswith("tested-")] == []
    nothing = replace(evidence, measured=Measured(weights="a.caffemodel"))
    assert not [one for one in diagnose(nothing).findings if one.rule.startswith("tested-")]


def test_batch_statistics_by_test_batch():
    wrong = {"batch_statistics": True, "by_test_batch": BY_BATCH, "val": score(76.7)}
    one = settled("tested-batch-statistics", MEASURED, **wrong, reestimated=score(30.7))
    assert "1: 84.0, 2: 76.7, 4: 38.7" in words(one)
    assert "76.7 % of 1,000 as tested, and 30.7 % of 1,000" in words(one)
    assert "first-epoch-gap" in one.settles
    right = {**wrong, "val": score(21.7), "reestimated": score(21.0)}
    one = settled("tested-batch-statistics", POSSIBLE, **right)
    assert one.settles == ("batch-statistics-in-test",)
    same = tuple((size, score(21.0)) for size, _ in BY_BATCH)
    one = settled("tested-batch-statistics", UNLIKELY, **{**right, "by_test_batch": same})
    assert one.against
    assert not found("tested-batch-statistics", by_test_batch=BY_BATCH)


def test_running_statistics_that_new_ones_repair():
    stale = {"val": score(42.0), "train": score(41.0), "reestimated_train": score(26.0)}
    one = settled("tested-running-statistics", MEASURED, **stale, reestimated=score(27.0))
    assert "--reestimate-bn 200" in words(one)
    assert "The same training images" in words(one)
    one = settled("tested-running-statistics", UNLIKELY, **stale, reestimated=score(40.0))
    assert "close 6 % of the gap" in words(one)
    early = {**stale, "reestimated": score(40.0), "iteration": 2000}
    assert not found("tested-running-statistics", **early)  # the curves tell of the end
    few = {"val": score(42.0, 30), "reestimated": score(27.0, 30)}
    assert not found("tested-running-statistics", **few)  # chance


def test_overfitting_is_shown_by_training_images_tested_as_the_others():
    memorized = {"val": score(43.0), "train": score(6.0), "reestimated": score(42.0)}
    one = settled("tested-overfitting", MEASURED, **memorized)
    assert "6.0 % of 1,000 training images and 43.0 % of 1,000 validation" in words(one)
    bad = {"val": score(43.0), "train": score(41.0), "reestimated": score(42.0)}
    settled("tested-overfitting", UNLIKELY, **bad)
    assert not found("tested-overfitting", **bad, iteration=2000)
    other_reasons: list[dict[str, Any]] = [
        {"val_input": BRIGHT},
        {"labels": LabelMatch(same_table=False)},
        {"labels": LabelMatch(shift=1, shift_error=7.0)},
        {"labels": LabelMatch(renamed=5, renamed_error=8.0)},
    ]
    for reason in other_reasons:
        assert not found("tested-overfitting", **memorized, **reason)


def test_overfitting_without_the_fault_of_the_statistics():
    stale = {"val": score(60.0), "train": score(30.0)}
    new = {"reestimated": score(31.0), "reestimated_train": score(28.0)}
    (one,) = found("tested-overfitting", **stale, **new)
    assert one.confidence == UNLIKELY


def test_classes_that_are_more_frequent_in_training_are_no_overfitting():
    mix = LabelMatch(same_table=True, distance=0.6)
    scores = {"val": score(53.0, class_error=53.0), "train": score(11.0, class_error=50.0)}
    scores["reestimated"] = score(52.0)
    (one,) = found("tested-overfitting", **scores, labels=mix)
    assert one.confidence == UNLIKELY
    scores["train"] = score(11.0, class_error=12.0)
    (one,) = found("tested-overfitting", **scores, labels=mix)
    assert one.confidence == MEASURED
    assert "12.0 % for training images and 53.0 %" in words(one)


def test_a_gap_on_training_images_without_a_known_reason():
    gap = {"train": score(40.0), "reestimated_train": score(39.0)}
    settled("tested-gap", LIKELY, **gap)
    assert not found("tested-gap", **{**gap, "reestimated_train": score(10.0)})
    assert not found("tested-gap", **gap, val=score(38.0), reestimated=score(12.0))
    assert found("tested-gap", **{**gap, "reestimated": None, "reestimated_train": None})
    few = {"train": score(43.3, 150), "as_trained": score(25.0, 144)}
    assert not found("tested-gap", **few, reestimated_train=score(32.0, 150))
    assert not found("tested-gap", **gap, val_input=BRIGHT)
    assert not found("tested-gap", **gap, mixed=score(38.0))
    assert not found("tested-gap")


def test_labels_that_mean_other_classes():
    wrong = {"val": score(93.0)}
    one = settled("tested-labels", MEASURED, **wrong, labels=LabelMatch(shift=-1, shift_error=9.0))
    assert "off by +1" in words(one)
    named = LabelMatch(renamed=9, renamed_error=21.0)
    one = settled("tested-labels", MEASURED, **wrong, labels=named)
    assert "For 9 labels" in words(one)
    assert found("tested-labels", labels=LabelMatch(same_table=False))
    by_chance = LabelMatch(shift=3, shift_error=88.0, renamed=1, renamed_error=80.0)
    assert not found("tested-labels", **wrong, labels=by_chance)


def test_inputs_that_differ():
    one = settled("tested-inputs", MEASURED, val=score(68.0), val_input=BRIGHT)
    assert "means 0.1/0.1 and 0.9/0.9" in words(one)
    one = settled("tested-inputs", POSSIBLE, val_input=BRIGHT)
    assert one.against
    noisy = replace(BRIGHT, error=(0.3, 0.3))
    assert not found("tested-inputs", val_input=noisy)
    assert found("tested-inputs", val_input=replace(GRAY, std=(90.0, 90.0)))


def test_batches_of_few_classes():
    one = settled("tested-order", MEASURED, label_mix=SORTED, mixed=score(45.0))
    assert "140.0 on average" in words(one)
    assert "45.0 % of 1,000 in random order" in words(one)
    partly = replace(MIXED, chi_square=15.0, far=0.2)
    settled("tested-order", POSSIBLE, label_mix=partly)
    settled("tested-order", UNLIKELY)
    chance = replace(MIXED, chi_square=15.0, sigma=3.0)  # of few batches
    settled("tested-order", UNLIKELY, label_mix=chance)


BLOCKS = tuple(BlockActivity(f"b{n}", 0.7 + 0.2 * n, 0.9) for n in range(10))
GUESSES = {"val": score(90.0), "train": score(90.0), "as_trained": score(89.0)}


def test_dead_units():
    dead = (relu(0), relu(64, "last"))
    one = settled("tested-dead-units", MEASURED, **GUESSES, activations=dead)
    assert "64 of 128 channels" in words(one)
    assert "last: 64 of 64" in words(one)
    (one,) = found("tested-dead-units", **GUESSES, activations=(relu(40), relu(0)))
    assert one.confidence == POSSIBLE
    assert not found("tested-dead-units", **GUESSES)
    one = settled("tested-dead-units", UNLIKELY, blocks=BLOCKS)
    assert "Over 10 residual blocks" in words(one)
    assert "from 0.7 to at most 2.5" in words(one)
    assert not found("tested-dead-units", activations=(relu(40), relu(0)))  # and it has learned


def test_a_trunk_that_grows():
    grown = (*BLOCKS, BlockActivity("last", 80.0, 70.0))
    settled("tested-trunk", LIKELY, blocks=grown)
    assert not found("tested-trunk", blocks=BLOCKS)
    assert not found("tested-trunk")


def test_numbers_that_are_none():
    one = settled("tested-numbers", MEASURED, bad_weights=("a", "b", "c", "d"))
    assert "a, b, c and 1 more" in words(one)
    one = settled("tested-numbers", MEASURED, first_bad_layer="conv2")
    assert "break in conv2" in words(one)
    assert not found("tested-numbers")


def finding(confidence, text, settles=()):
    return Finding(confidence, text, "", (text, "both"), (), settles=settles)


@pytest.mark.parametrize("confidence", [MEASURED, UNLIKELY])
def test_what_settles_a_cause_takes_over_its_evidence(confidence):
    curves = finding(LIKELY, "by the curves")
    rules = [
        Rule("curves", "", "", (), (), lambda _: iter([curves])),
        Rule("tested", "", "", (), (), lambda _: iter([finding(confidence, "it", ("curves",))])),
        Rule("other", "", "", (), (), lambda _: iter([finding(POSSIBLE, "other")])),
    ]
    evidence = healthy()
    merged = next(one for one in run_rules(evidence, rules) if one.rule == "tested")
    assert merged.confidence == confidence
    assert merged.evidence == ("it", "both", "by the curves")
    assert [one.rule for one in run_rules(evidence, rules)].count("curves") == 0
    alone = [one.rule for one in run_rules(evidence, rules[1:])]
    assert ("tested" in alone) == (confidence == MEASURED)
    assert "other" in alone
