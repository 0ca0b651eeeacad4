"""Rules on residual blocks without a factor."""

from __future__ import annotations

import math

import pytest
from helpers.check_cases import block, tf
from helpers.diagnose_cases import SOLVER, changed, healthy, run

import irv2caffe.diagnose.rules  # noqa: F401 - registers them
from irv2caffe.diagnose.finding import LIKELY, POSSIBLE, UNLIKELY
from irv2caffe.diagnose.registry import RULES, run_rules

SCALED = changed(tf(), [("num_output: 4 ", "num_output: 10 ")])
UNSCALED = changed(SCALED, [("coeff: 1 coeff: 0.1", "")])
UNRECTIFIED = changed(
    SCALED, [(block("one", "grid", 1024), block("one", "grid", 1024, relu=False))]
)
BACK = [2.3 - 0.02 * place for place in range(60)] + [math.log(10)] * 60
OVERFIT = {
    "losses": lambda epoch: 0.02 + 2.2 * 0.8**epoch,
    "tests": lambda epoch: (50 + 40 * 0.4**epoch, 1.4 + 0.05 * epoch),
}
JUMPS = [(80.0, 8.0), (70.0, 41.7), (60.0, 1.5), (50.0, 7.3), *[(45.0, 1.6)] * 16]


def found(evidence):
    """The findings of these rules, by rule."""
    rules = [each for each in RULES.values() if each.topic == "scaling"]
    return {one.rule: one for one in run_rules(evidence, rules)}


def with_net(train_val, **more):
    return run(**more, solver=SOLVER, train_val=train_val)


def test_a_loss_that_fell_speaks_against_it():
    finding = found(with_net(UNSCALED, **OVERFIT))["residual-scaling"]
    assert finding.confidence == UNLIKELY
    text = "2 branches of more than 1,000 channels are added unscaled; the first is one ("
    assert text in finding.evidence[0]
    assert "a dead last layer would keep it at 2.3" in finding.against[0]
    assert "27.1 % top-1" in finding.against[1]
    assert "residual-scaling" not in found(with_net(SCALED, **OVERFIT))
    assert "residual-scaling" not in found(healthy(solver=SOLVER, train_val=UNSCALED))
    assert "residual-scaling" not in found(run(**OVERFIT))


def test_a_net_that_died():
    tests = {"tests": lambda _: 60.0}
    finding = found(with_net(UNSCALED, losses=BACK, **tests))["residual-scaling"]
    assert finding.confidence == LIKELY
    assert "that of guessing: the last layer gives the same for every image." in finding.evidence[1]
    never = with_net(UNSCALED, losses=lambda _: math.log(10), **tests)
    assert found(never)["residual-scaling"].confidence == POSSIBLE


def test_a_high_first_loss_is_an_early_sign():
    broken = [18.0, 17.0, 15.0, 12.0, 11.0, 10.0, 8.0, *[math.nan] * 20]
    finding = found(with_net(UNSCALED, losses=broken, tests=[90.0]))["residual-scaling"]
    assert finding.confidence == POSSIBLE
    assert "The loss began at 18, far above guessing (2.3)" in finding.evidence[1]


@pytest.mark.parametrize("train_val", [UNSCALED, UNRECTIFIED])
def test_running_statistics_of_a_trunk_that_grows(train_val):
    finding = found(with_net(train_val, tests=JUMPS))["trunk-statistics"]
    assert finding.confidence == POSSIBLE
    assert finding.evidence[0] == (
        "The test loss is 8 at epoch 1.5 and 41.7 at epoch 3; up to 41.7 early on."
    )
    # The same in a run of three tests.
    assert "trunk-statistics" in found(with_net(train_val, tests=JUMPS[:3]))
    assert "trunk-statistics" not in found(healthy(solver=SOLVER, train_val=train_val))


def test_statistics_of_the_batch_do_not_lag():
    batch = changed(UNSCALED, [("eps: 0.001", "eps: 0.001 use_global_stats: false")])
    assert "trunk-statistics" not in found(with_net(batch, tests=JUMPS))
    assert "trunk-statistics" not in found(with_net(SCALED, tests=JUMPS))
