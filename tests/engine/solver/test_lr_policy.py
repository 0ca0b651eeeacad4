"""Learning rates, against numbers computed by hand."""

from __future__ import annotations

import math

import pytest

from irv2caffe.engine.solver.lr_policy import LearningRate
from irv2caffe.errors import UsageError
from irv2caffe.proto import messages


def policy(name, **fields):
    return LearningRate(messages.SolverParameter(lr_policy=name, base_lr=0.5, **fields))


@pytest.mark.parametrize(
    ("name", "fields", "iteration", "rate"),
    [
        ("fixed", {}, 7, 0.5),
        ("step", {"gamma": 0.5, "stepsize": 3}, 7, 0.125),
        ("exp", {"gamma": 0.5}, 3, 0.0625),
        ("inv", {"gamma": 0.5, "power": 2}, 2, 0.125),
        ("poly", {"power": 2, "max_iter": 4}, 2, 0.125),
        ("sigmoid", {"gamma": 0.5, "stepsize": 4}, 4, 0.25),
        ("exp", {"gamma": 10}, 400, math.inf),
    ],
)
def test_rates(name, fields, iteration, rate):
    assert policy(name, **fields).rate(iteration) == rate


def test_multistep_takes_one_step_in_an_iteration():
    found = policy("multistep", gamma=0.5, stepvalue=[2, 3])
    assert [found.rate(iteration) for iteration in (1, 9, 10, 11)] == [0.5, 0.25, 0.125, 0.125]
    assert found.current_step == 2


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("stpe", {}, "Unknown learning rate policy: stpe"),
        ("step", {"gamma": 0.5}, "stepsize is 0"),
        ("exp", {"gamma": -1}, "gamma is -1"),
    ],
)
def test_refused(name, fields, words):
    with pytest.raises(UsageError, match=words):
        policy(name, **fields)
