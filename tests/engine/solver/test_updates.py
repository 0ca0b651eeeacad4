"""Updates of weights, against the optimizers of torch where they have the same rule."""

from __future__ import annotations

import pytest
import torch

from irv2caffe.engine.solver.updates import Update
from irv2caffe.engine.weights import Weight
from irv2caffe.errors import UsageError
from irv2caffe.proto import messages

RULES = {
    "SGD": ({"momentum": 0.9}, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "Nesterov": (
        {"momentum": 0.9},
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    ),
    "AdaGrad": ({"delta": 0.01}, lambda p: torch.optim.Adagrad(p, 0.1, eps=0.01)),
    "RMSProp": (
        {"rms_decay": 0.9, "delta": 0.01},
        lambda p: torch.optim.RMSprop(p, 0.1, alpha=0.9, eps=0.01),
    ),
    "AdaDelta": (
        {"momentum": 0.9, "delta": 0.01},
        lambda p: torch.optim.Adadelta(p, 0.1, rho=0.9, eps=0.01),
    ),
}


def weights(*values, **changes):
    made = {"lr_mult": 1.0, "decay_mult": 1.0, "layer": "fc", "index": 0, **changes}
    return [Weight(value.clone().requires_grad_(), **made) for value in values]


def update(learnable, kind="SGD", **fields):
    return Update(messages.SolverParameter(type=kind, **fields), learnable)


@pytest.mark.parametrize("kind", RULES)
def test_updates_equal_those_of_torch(kind):
    torch.manual_seed(0)
    start = [torch.randn(3, 4), torch.randn(5)]
    fields, optimizer_of = RULES[kind]
    theirs = [value.clone().requires_grad_() for value in start]
    optimizer = optimizer_of(theirs)
    ours = weights(*start)
    solver = update(ours, kind, **fields)
    for iteration in range(5):
        solver.clear_gradients()
        for own, other in zip(ours, theirs, strict=True):
            own.tensor.grad = torch.randn(own.tensor.shape)
            other.grad = own.tensor.grad.clone()
        optimizer.step()
        solver.apply(0.1, iteration)
        for own, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(own.tensor, other)


def test_clipping_comes_before_iter_size_and_decay():
    (one,) = weights(torch.tensor([1.0, 2.0]))
    one.tensor.grad = torch.tensor([30.0, 40.0])
    clipped = update([one], clip_gradients=5, iter_size=2, weight_decay=0.1).apply(1, 0)
    assert clipped == (50, 0.1)
    # the clipped gradients, halved, plus a tenth of the weights
    torch.testing.assert_close(one.tensor.detach(), torch.tensor([1 - 1.6, 2 - 2.2]))


def test_l1_adds_the_sign_of_the_weight_times_both_factors():
    (one,) = weights(torch.tensor([1.0, -2.0, 0.0]), decay_mult=2.0, lr_mult=0.5)
    one.tensor.grad = torch.zeros(3)
    update([one], weight_decay=0.1, regularization_type="L1").apply(1, 0)
    torch.testing.assert_close(one.tensor.detach(), torch.tensor([0.9, -1.9, 0.0]))


def test_frozen_weights_stay_but_have_a_history():
    (one,) = weights(torch.ones(2), lr_mult=0.0)
    solver = update([one], "RMSProp", rms_decay=0.5, weight_decay=1)
    for iteration in range(2):
        solver.clear_gradients()
        solver.apply(0.1, iteration)
    assert one.tensor.tolist() == [1, 1]
    assert solver.history[0].tolist() == [0.75, 0.75]


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("RMSProp", {"momentum": 0.9}, "Momentum cannot be used with RMSProp"),
        ("AdaGrad", {"momentum": 0.9}, "Momentum cannot be used with AdaGrad"),
        ("RMSProp", {"rms_decay": 1}, "rms_decay should lie between 0 and 1"),
        ("Adma", {}, "Unknown solver type: Adma"),
        ("SGD", {"weight_decay": 1, "regularization_type": "L3"}, "Unknown regularization"),
        ("Adam", {"momentum": 1}, "less than 1"),
    ],
)
def test_refused(kind, fields, words):
    with pytest.raises(UsageError, match=words):
        update(weights(torch.ones(1)), kind, **fields)
