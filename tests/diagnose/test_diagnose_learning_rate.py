"""Rules on the learning rate and its schedule."""

from __future__ import annotations

import math

import pytest
from helpers.diagnose_cases import SOLVER, TRAIN_VAL, changed, healthy, run
from helpers.log_lines import stamped

import irv2caffe.diagnose.rules  # noqa: F401 - registers them
from irv2caffe.diagnose.course import course_of
from irv2caffe.diagnose.finding import LIKELY, POSSIBLE
from irv2caffe.diagnose.rates import rate_per_image, rates_of
from irv2caffe.diagnose.registry import RULES, run_rules

DONE = (stamped(36_000, "Optimization Done."),)
MINE = ("learning_rate", "schedule")


def found(evidence, *topics):
    """The findings of the rules of these modules, by rule."""
    wanted = topics or MINE
    rules = [each for each in RULES.values() if each.topic in wanted]
    return {one.rule: one for one in run_rules(evidence, rules)}


def solver(**fields):
    """The solver with other values of fields that it has."""
    lines = []
    for line in SOLVER.strip().splitlines():
        name = line.partition(":")[0]
        lines.append(f"{name}: {fields.pop(name)}" if name in fields else line)
    return "\n".join([*lines, *(f"{name}: {value}" for name, value in fields.items())]) + "\n"


def test_a_loss_that_rises_before_it_diverges_is_a_rate_too_high():
    losses = [2.3, 2.1, 2.0, 2.4, 3.9, 11.0, *[math.nan] * 20]
    finding = found(run(losses=losses, lr=0.4))["learning-rate-too-high"]
    assert finding.confidence == LIKELY
    assert finding.evidence[0] == "Before epoch 6.92, the loss rose from 2 to 11."
    assert "The learning rate is 0.4 at its highest." in finding.evidence
    assert finding.cure[0] == "start again with base_lr: 0.04 in the solver"


def test_a_sudden_divergence_may_have_other_causes():
    losses = [2.3, 2.1, 2.0, 1.9, 1.8, 1.7, *[math.nan] * 20]
    finding = found(run(losses=losses))["learning-rate-too-high"]
    assert finding.confidence == POSSIBLE
    assert "the log shows no rise" in finding.evidence[0]


def test_a_rate_beyond_all_recipes_is_likely_even_in_a_sudden_divergence():
    losses = [2.3, *[math.nan] * 20]
    text = solver(base_lr=2.0)
    finding = found(run(losses=losses, solver=text, train_val=TRAIN_VAL, lr=2.0))
    finding = finding["learning-rate-too-high"]
    assert finding.confidence == LIKELY
    assert "1.3 per image" in finding.evidence[0]  # 2 / (1 - 0.9) / 16
    # Of the lower ones of a tenth, and of 0.014 per image.
    assert finding.cure[0].endswith("--base-lr 0.0224")


def test_a_loss_that_is_no_number_before_any_update_is_not_the_rate():
    assert "learning-rate-too-high" not in found(run(losses=[math.nan] * 30))


def test_spikes_over_the_loss_of_guessing():
    def fine(epoch):
        return (30 + 60 * 0.8**epoch, 1.0)

    spiky = [1.0 if place % 12 else 6.0 for place in range(300)]
    finding = found(run(losses=spiky, tests=fine))["learning-rate-too-high"]
    assert finding.confidence == LIKELY
    text = "displays show a loss of more than twice that around them, up to 6; guessing has 2.3."
    assert text in finding.evidence[0]
    # Two of them are unusual batches, and below guessing they are the noise of small batches.
    few = [1.0 if place not in {100, 200} else 6.0 for place in range(300)]
    noise = [0.5 if place % 12 else 1.5 for place in range(300)]
    for losses in (few, noise):
        assert "learning-rate-too-high" not in found(run(losses=losses, tests=fine))
        assert "learning-rate-too-high" not in found(run(losses=losses))


def test_a_loss_that_explodes_and_one_that_falls_back():
    exploded = [2.3, 2.0, 1.8, 1.7, 1.6] * 4 + [900.0, 4e4, 5e4, 5e4] * 5
    finding = found(run(losses=exploded))["learning-rate-too-high"]
    assert finding.confidence == LIKELY
    assert "rises to 5e+04" in finding.evidence[0]
    back = [2.3 - 0.02 * place for place in range(60)] + [2.303] * 60
    finding = found(run(losses=back))["learning-rate-too-high"]
    assert finding.confidence == POSSIBLE
    assert "had fallen to 1.1" in finding.evidence[0]
    rising = run(losses=back, lr=lambda epoch: 0.01 + 0.01 * epoch)
    assert "gamma below 1" in found(rising)["learning-rate-too-high"].cure[0]
    # A rate that is already a hundredth is not too high.
    low = run(losses=back, lr=lambda epoch: 0.045 if epoch < 8 else 0.00045)
    assert "learning-rate-too-high" not in found(low)


def test_a_loss_that_jumps_up_and_stays():
    high = run(losses=[2.3, 9.0, 24.0] + [36.0] * 60, tests=lambda _: 89.0, lr=10.0)
    finding = found(high)["learning-rate-too-high"]
    assert finding.confidence == LIKELY
    assert "loss rises to 36" in finding.evidence[0]
    high = run(losses=[2.3, 5.0] + [9.0] * 60, tests=lambda _: 89.0, lr=10.0)
    finding = found(high)["learning-rate-too-high"]
    assert finding.evidence[0] == "The loss is 9 in the second half of the run; guessing has 2.3."
    # A net whose first loss was high already, and one that has no classes.
    for losses, classes in (([20.0] * 60, 10), ([40.0 - place / 3 for place in range(90)], 1)):
        evidence = run(losses=losses, tests=lambda _: 89.0, num_classes=classes)
        assert "learning-rate-too-high" not in found(evidence)


def test_a_loss_that_never_falls_at_a_rate_beyond_all_recipes():
    text = solver(base_lr=0.5)
    stuck = run(losses=lambda _: 2.36, solver=text, train_val=TRAIN_VAL, lr=0.5)
    finding = found(stuck)["learning-rate-too-high"]
    assert finding.confidence == POSSIBLE
    assert "0.31 per image" in finding.evidence[0]


def test_spikes_of_images_in_the_order_of_classes_are_no_sign():
    # Every tenth of an epoch another class begins, and the loss is high until it is learned.
    sorted_images = [6.0 if place % 10 == 0 else 0.4 for place in range(300)]
    files = {"solver": SOLVER, "train_val": TRAIN_VAL}
    evidence = run(losses=sorted_images, tests=lambda _: 89.0, epochs=10.0, **files)
    assert "learning-rate-too-high" not in found(evidence)


def test_a_rate_far_below_recipes_is_too_low():
    low = {"solver": solver(base_lr=1e-5), "train_val": TRAIN_VAL, "lr": 1e-5}
    slow = run(losses=lambda epoch: 2.3 - 0.02 * epoch, noise=0.002, **low)
    finding = found(slow)["learning-rate-too-low"]
    assert finding.confidence == LIKELY
    assert "6.3e-06 per image" in finding.evidence[1]
    assert finding.cure[0].endswith("--base-lr 0.0001")
    stuck = run(losses=lambda _: 2.3, noise=0.002, **low)
    assert found(stuck)["learning-rate-too-low"].confidence == POSSIBLE
    assert found(stuck)["learning-rate-too-low"].symptom == "The loss hardly falls."
    # Where it began from other weights, low rates are usual.
    tuned = run(
        losses=lambda epoch: 2.3 - 0.02 * epoch,
        noise=0.002,
        lines=(stamped(36_000, "Finetuning from other.caffemodel"),),
        **low,
    )
    assert "learning-rate-too-low" not in found(tuned)


def test_a_slow_loss_at_a_usual_rate_only_may_have_one_that_is_too_low():
    slow = {"losses": lambda epoch: 2.3 - 0.02 * epoch, "noise": 0.002}
    finding = found(run(**slow, lines=DONE))["learning-rate-too-low"]
    assert finding.confidence == POSSIBLE
    assert finding.against
    assert "learning-rate-too-low" not in found(run(**slow))  # it goes on


def decaying(epoch):
    """A rate that is a hundredth of its start at epoch 10."""
    return max(1e-9, 0.045 * 10 ** (-0.2 * epoch))


def stops_with_rate(epoch):
    """A loss that falls as long as the rate allows."""
    return 1.2 + 1.1 * max(0.0, 1 - epoch / 10)


def test_a_rate_that_vanishes_while_the_loss_falls():
    fast = run(losses=stops_with_rate, noise=0.002, lr=decaying)
    finding = found(fast)["learning-rate-decayed-too-fast"]
    assert finding.confidence == LIKELY
    assert finding.evidence[0].startswith("The rate fell from 0.045 to a hundredth of it by epoch")
    assert "of the sum of all rates" in finding.evidence[2]
    with_files = run(
        losses=stops_with_rate, noise=0.002, lr=decaying, solver=SOLVER, train_val=TRAIN_VAL
    )
    (cure,) = found(with_files)["learning-rate-decayed-too-fast"].cure
    # A step is two epochs; the rate is to be a hundredth at epoch 30, not 10.
    assert cure.startswith("irv2caffe train --solver ")
    assert float(cure.rpartition(" ")[2]) == pytest.approx(6, rel=0.05)


def test_a_rate_that_falls_when_the_loss_has_flattened_is_usual():
    def steps(epoch):
        return 0.1 * 0.1 ** sum(epoch >= at for at in (10, 16, 22))

    def loss(epoch):
        return 0.3 + 2 * 0.6 ** min(epoch, 9) if epoch < 10 else 0.2

    evidence = healthy(losses=loss, lr=steps)
    assert "learning-rate-decayed-too-fast" not in found(evidence)

    # A step schedule whose rate is a hundredth for the last third of the run (CaffeNet's).
    def caffenet(epoch):
        return 2.0 * 0.75 ** (epoch / 3) if epoch < 10 else 1.0 - 0.01 * min(epoch, 20)

    late = run(losses=caffenet, lr=lambda epoch: 0.01 * 0.1 ** (epoch // 7), noise=0.002)
    assert "learning-rate-decayed-too-fast" not in found(late)
    cosine = healthy(lr=lambda epoch: 0.0225 * (1.0001 + math.cos(math.pi * epoch / 30)))
    assert not found(cosine)


def flat(epoch):
    return 1.1 + 1.2 * 0.4**epoch


def flat_error(epoch):
    return (45 + 45 * 0.4**epoch, 1.3)


def test_a_plateau_at_a_rate_that_was_never_lowered():
    finding = found(run(losses=flat, tests=flat_error))["learning-rate-not-lowered"]
    assert finding.confidence == LIKELY
    assert finding.evidence[1] == "The rate is 0.045 from the start to the end."
    assert not finding.against
    only_loss = found(run(losses=flat))["learning-rate-not-lowered"]
    assert only_loss.confidence == POSSIBLE
    lowered = run(losses=flat, tests=flat_error, lr=lambda epoch: 0.045 * 0.9**epoch)
    assert "learning-rate-not-lowered" not in found(lowered)


def test_a_plateau_before_the_solver_lowers_the_rate():
    later = solver(stepsize=50_000, gamma=0.1, max_iter=150_000)
    values = {"losses": flat, "tests": flat_error, "solver": later, "train_val": TRAIN_VAL}
    finding = found(run(**values))["learning-rate-not-lowered"]
    assert finding.confidence == POSSIBLE
    assert "not over: its solver lowers the rate by itself, to 0.0045 at" in finding.against[0]
    over = found(run(**values, lines=DONE))["learning-rate-not-lowered"]
    assert (over.confidence, over.against) == (LIKELY, ())


def test_a_plateau_of_the_error_alone_speaks_against_the_rate():
    overfit = run(losses=lambda epoch: 0.1 + 2.2 * 0.9**epoch, tests=flat_error)
    finding = found(overfit)["learning-rate-not-lowered"]
    assert finding.confidence == POSSIBLE
    assert "generalizes no further" in finding.against[0]
    fitted = run(losses=lambda epoch: 1e-3 + 2.2 * 0.5**epoch, tests=flat_error)
    assert "learning-rate-not-lowered" not in found(fitted)


def test_a_run_that_ends_while_it_improves():
    def error(epoch):
        return (80 - 2 * epoch, 1.0)

    def loss(epoch):
        return 2.3 - 0.05 * epoch

    finding = found(run(losses=loss, tests=error, lines=DONE))["stopped-too-early"]
    assert finding.confidence == POSSIBLE
    assert finding.cure == ("max_iter: 60000 in the solver",)
    # Not one that goes on, nor one whose rate has come down as planned.
    assert "stopped-too-early" not in found(run(losses=loss, tests=error))
    planned = run(losses=loss, tests=error, lines=DONE, lr=lambda epoch: 0.045 * 0.9**epoch)
    assert "stopped-too-early" not in found(planned)


@pytest.mark.parametrize("has_files", [False, True])
def test_nothing_on_a_healthy_run(has_files):
    files = {"solver": SOLVER, "train_val": TRAIN_VAL} if has_files else {}
    assert not found(healthy(**files))
    assert not found(healthy(**files, lines=DONE, lr=lambda epoch: 0.045 * 0.88**epoch))


def test_rates_come_from_the_schedule_where_the_curve_has_none():
    shown = run(solver=SOLVER, train_val=TRAIN_VAL, lr=0.02)
    assert rates_of(shown).highest == pytest.approx(0.02)
    silent = run(solver=SOLVER, train_val=TRAIN_VAL, lr=math.nan)
    rates = rates_of(silent)
    assert rates.highest == pytest.approx(0.045)
    assert rates.last == pytest.approx(0.045 * 0.94 ** (silent.num_iterations // 4000))


def test_the_rate_of_an_image():
    evidence = run(solver=SOLVER, train_val=TRAIN_VAL)
    assert rate_per_image(evidence) == pytest.approx(0.045 / (1 - 0.9) / 16)
    adam = changed(SOLVER, [('"SGD"', '"Adam"')])
    assert rate_per_image(run(solver=adam, train_val=TRAIN_VAL)) is None
    assert rate_per_image(run()) is None


def test_the_course_of_a_loss():
    course = course_of(run(losses=lambda epoch: 2.0 - epoch / 30, noise=0.0))
    assert len(course.losses) == 20
    assert course.first == pytest.approx(1.99, abs=0.01)
    assert course.last == pytest.approx(1.05, abs=0.02)
    assert course.guess == pytest.approx(math.log(10))
    assert not course.is_flat(0.5)
    # Up to where it diverged.
    cut = course_of(run(losses=[2.0] * 10 + [math.nan] * 10))
    assert cut.num_displays == 10
    assert set(cut.losses) == {2.0}
    assert course_of(run(losses=[2.0, math.nan, math.nan])) is None


def test_a_regression_is_not_measured_by_guessing():
    course = course_of(run(losses=lambda epoch: 40 * 0.9**epoch, num_classes=4))
    assert course.guess is None
    assert course.level == pytest.approx(course.first)
