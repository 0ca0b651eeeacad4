"""Rules on the images: the runs that they find, and runs like them that are fine."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from helpers.diagnose_cases import DATABASES, SOLVER, TRAIN_VAL, changed, healthy, run

from irv2caffe.diagnose.diagnosis import diagnose
from irv2caffe.diagnose.finding import LIKELY, MEASURED, POSSIBLE
from irv2caffe.diagnose.mixing import mixing_of

FILES = {"solver": SOLVER, "train_val": TRAIN_VAL}
SORTED = {"train_lmdb": replace(DATABASES["train_lmdb"], order="sorted")}
OTHER_MEAN = changed(
    TRAIN_VAL,
    [
        (
            "transform_param { crop_size: 27 mean_value: 104",
            "transform_param { crop_size: 27 mean_value: 4",
        )
    ],
)


def falling(epoch):
    return 0.25 + 2.05 * 0.86**epoch


def bad_tests(epoch):
    return 35 + 40 * 0.9**epoch, 1.2 + 1.9 * 0.9**epoch


def by_class(epoch):
    """Each tenth of an epoch shows a new class, which the net learns and forgets."""
    return 0.1 + 4.0 * math.exp(-8 * (10 * epoch % 1.0)) * (0.6 + 0.4 * (int(10 * epoch) % 3))


def names(evidence):
    return {one.rule: one for one in diagnose(evidence).findings}


def test_a_database_in_the_order_of_its_labels():
    evidence = run(falling, lambda _: (89.0, 5.0), databases=SORTED, **FILES)
    found = diagnose(evidence).findings[0]
    assert (found.rule, found.confidence) == ("ordered-database", MEASURED)
    assert "overfitting" not in names(evidence)
    assert "validation-at-chance" not in names(evidence)
    assert not names(healthy(**FILES))


def test_an_engine_that_shuffles_makes_up_for_the_order():
    config = {"torch": {"options": {"shuffle": True}}}
    found = names(healthy(databases=SORTED, config=config, is_run=True, **FILES))
    assert not {"ordered-database", "badly-mixed", "fixed-order"} & set(found)
    assert "ordered-database" in names(healthy(databases=SORTED, is_run=True, **FILES))


def test_a_loss_that_shows_the_order_of_the_database():
    evidence = run(by_class, lambda _: (89.5, 6.0), num_displays=900, epochs=10.0)
    found = diagnose(evidence).findings[0]
    assert (found.rule, found.confidence) == ("badly-mixed", LIKELY)
    assert "the same places of an epoch are easy and hard again" in found.evidence[0]
    assert "No test was better than guessing" in found.evidence[1]


def test_what_the_database_looks_like_speaks_against_bad_mixing():
    evidence = run(by_class, num_displays=900, epochs=10.0, tests=bad_tests, **FILES)
    found = names(evidence)["badly-mixed"]
    assert found.confidence is POSSIBLE
    assert "look shuffled" in found.against[0]


def test_a_wild_loss_may_come_of_the_rate():
    def losses(epoch):
        return 1.0 + math.sin(7919 * epoch) * 0.8

    unknown = {"train_lmdb": replace(DATABASES["train_lmdb"], order="unknown")}
    found = names(run(losses, bad_tests, num_displays=400, databases=unknown, **FILES))
    assert found["badly-mixed"].confidence is POSSIBLE
    assert "learning rate" in found["badly-mixed"].against[0]


def test_steps_of_a_net_that_memorizes_are_no_bad_mixing():
    """With every epoch the loss of known images is a step lower."""
    evidence = run(lambda epoch: 2.0 * 0.8 ** int(epoch), bad_tests, num_displays=900)
    mixing = mixing_of(evidence)
    assert not mixing.is_wide
    assert "badly-mixed" not in names(evidence)


def test_the_spread_of_random_batches_is_no_bad_mixing():
    """Images whose losses are exponential, averaged over a batch, seen in a fixed order."""
    import numpy as np

    rng = np.random.default_rng(1)
    order = rng.exponential(1.0, (90, 32)).mean(axis=1)
    losses = [float(0.8 * each) for _ in range(10) for each in order]
    mixing = mixing_of(run(losses, bad_tests, epochs=10.0))
    assert mixing.is_periodic
    assert 0.3 < mixing.spread / mixing.expected < 1.2
    assert not mixing.is_wide


def test_an_unknown_order_is_a_candidate_where_tests_are_bad_at_once():
    unknown = {name: replace(each, order="unknown") for name, each in DATABASES.items()}
    found = names(run(falling, bad_tests, databases=unknown, **FILES))
    assert found["fixed-order"].confidence is POSSIBLE
    assert "unchecked-databases" not in found
    assert "fixed-order" not in names(run(falling, bad_tests, **FILES))
    assert "fixed-order" not in names(healthy(databases=unknown, **FILES))


def test_tests_with_another_mean():
    tests = (lambda _: (85.0, 60.0), lambda epoch: (12 + 78 * 0.84**epoch, 0.4 + 1.9 * 0.84**epoch))
    bad, fine = (
        names(run(falling, each, solver=SOLVER, train_val=OTHER_MEAN))["preprocessing-differs"]
        for each in tests
    )
    assert (bad.confidence, fine.confidence) == (MEASURED, MEASURED)
    assert "mean_value is" in bad.evidence[0]
    assert "validation images" in bad.evidence[1]
    assert fine.against
    assert fine.fit < bad.fit
    assert "preprocessing-differs" not in names(run(falling, bad_tests, **FILES))


def test_labels_that_mean_other_classes():
    databases = {
        name: replace(each, class_names=tuple(table))
        for (name, each), table in zip(DATABASES.items(), ("abcdefghij", "badcfehgji"), strict=True)
    }
    evidence = run(falling, lambda _: (92.0, 5.0), databases=databases, **FILES)
    found = diagnose(evidence).findings[0]
    assert (found.rule, found.confidence) == ("labels-differ", MEASURED)
    assert "validation-at-chance" not in names(evidence)
    assert "labels-differ" not in names(healthy(**FILES))


@pytest.mark.parametrize("files", [{}, FILES])
def test_tests_that_only_guess(files):
    evidence = run(falling, lambda epoch: (93.0 + (epoch * 7) % 3, 3 + epoch / 10), **files)
    found = names(evidence)
    assert found["validation-at-chance"].confidence is LIKELY
    assert "between 93" in found["validation-at-chance"].evidence[0]
    assert not {"overfitting", "first-epoch-gap", "running-statistics"} & set(found)
    assert ("labels say otherwise" in str(found["validation-at-chance"].evidence)) == bool(files)


def test_a_net_that_learns_nothing_is_not_about_labels():
    assert "validation-at-chance" not in names(run(lambda _: 2.3026, lambda _: (90.0, 2.3026)))


def test_few_images_of_most_classes():
    databases = {"train_lmdb": replace(DATABASES["train_lmdb"], num_records=1600,
                                       class_counts=(700, 700, *[25] * 8))}  # fmt: skip
    found = names(healthy(databases=databases, **FILES))
    assert found["class-imbalance"].confidence is MEASURED
    even = {"train_lmdb": replace(DATABASES["train_lmdb"], class_counts=(3200,) * 10)}
    assert not names(healthy(databases=even, **FILES))


def test_the_same_error_in_every_test():
    found = names(run(lambda epoch: 1.5 + 0.8 * 0.5**epoch, lambda _: (60.0, 1.6)))
    assert "40.0 % of the validation set" in found["one-answer"].cause
    learned = run(lambda epoch: 0.1 + 2.2 * 0.5**epoch, lambda _: (60.0, 1.6))
    assert "one-answer" not in names(learned)
    assert "one-answer" not in names(run(lambda _: 2.3026, lambda _: (90.0, 2.3026)))


def test_waiting_for_images():
    lines = ["I1124 23:59:59.500000  4242 blocking_queue.cpp:1] Waiting for data"]
    found = names(healthy(lines=lines * 40))["input-bottleneck"]
    assert "38,000 waits for 30,000 batches" in found.evidence[0]
    assert not names(healthy(lines=lines * 2))
    assert not names(healthy(lines=lines * 5))
    prefetching = ["I1124 23:59:59.500000    17 blocking_queue.cpp:1] Waiting for data"]
    assert not names(healthy(lines=prefetching * 40))
    engine = [
        "I1124 23:59:59.500000  4242 blocking_queue.cpp:49] Waiting for data: 9000.5 s of 1 s"
    ]
    assert "25 % of the time" in names(healthy(lines=engine))["input-bottleneck"].evidence[0]


def test_validation_images_of_another_size():
    large = {"val_lmdb": replace(DATABASES["val_lmdb"], height=64, width=64)}
    found = names(run(falling, bad_tests, databases=large, **FILES))["preprocessing-differs"]
    assert found.confidence is POSSIBLE
    assert "in TEST" in found.evidence[0]
    assert "preprocessing-differs" not in names(healthy(databases=large, **FILES))


def test_tests_of_the_training_images():
    same = changed(TRAIN_VAL, [('source: "val_lmdb"', 'source: "train_lmdb"')])
    found = names(healthy(solver=SOLVER, train_val=same))
    assert found["tests-on-training-images"].confidence is MEASURED
    assert "tests-on-training-images" not in names(healthy(**FILES))


def test_a_loss_of_zero_at_once_tells_of_unmixed_images():
    """As a public run with an unshuffled database: 0.02 after 60 iterations, guessing in tests."""
    losses = [6.9, 3.8, 1.6, 0.5, *[0.02] * 300]
    evidence = run(losses, lambda _: (99.4, 14.0), num_classes=1000, epochs=30.0)
    found = names(evidence)["validation-at-chance"]
    assert "come class by class" in found.cause
    assert "too few images to know the classes" in found.evidence[-1]
    assert "overfitting" not in names(evidence)


def test_all_fields_that_differ_are_named():
    scaled = changed(
        OTHER_MEAN, [("mirror: true crop_size: 27", "mirror: true scale: 0.01 crop_size: 27")]
    )
    found = names(run(falling, bad_tests, solver=SOLVER, train_val=scaled))["preprocessing-differs"]
    assert "mean_value is" in found.evidence[0]
    assert "scale is 0.01 in TRAIN, 1 in TEST" in found.evidence[1]
    assert found.cure == ("the same transform_param in TRAIN and TEST, but for mirror",)
