"""Iterations against epochs: how long, how often tested, how the learning rate falls."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from irv2caffe.check import fork_fields
from irv2caffe.check.arithmetic import (
    effective_batch,
    epochs,
    is_stepped_by_python,
    learning_rate,
    num_gpus,
    num_train,
    train_net,
)
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, rule
from irv2caffe.check.roles import is_tested

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, PrototxtFile

_POLICIES = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")
_RATE = "sgd_solver.cpp, GetLearningRate"
_CLOSE = 0.05
_NOTHING = 1e-3
_OFF = 100  # times the length of the run


@rule("max-iter", ERROR, "solver", "solver.cpp, Solve")
def max_iter(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """A run without iterations."""
    scripted = is_stepped_by_python(evidence) and not solver.says("max_iter")
    if solver.message.max_iter < 1:
        what = f"max_iter is {solver.message.max_iter if solver.says('max_iter') else 'missing'}"
        yield Hit(
            what,
            "caffe train ends at once, and exits 0; a script that steps the solver does not read it"
            if scripted
            else "Caffe ends at once, and exits 0",
            "max_iter: ...",
            solver.at("max_iter"),
            NOTE if scripted else None,
        )


@rule("base-lr", ERROR, "solver", _RATE)
def base_lr(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """A learning rate with which nothing learns."""
    del evidence
    value = solver.message.base_lr
    if value <= 0:
        said = f"{value:g}" if solver.says("base_lr") else "missing, which is 0"
        why = "nothing changes" if value == 0 else "every step goes uphill"
        yield Hit(f"base_lr is {said}", why, "base_lr: 0.045", solver.at("base_lr"))


@rule("lr-policy", ERROR, "solver", _RATE)
def lr_policy(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """A policy that Caffe does not have, or that lacks its numbers."""
    del evidence
    message, policy = solver.message, str(solver.message.lr_policy)
    at = solver.at("lr_policy")
    if policy not in _POLICIES:
        said = f"lr_policy: {policy[:60]!r}" if policy else "lr_policy is missing"
        fork = fork_fields.POLICIES.get(policy, "")
        why = "Caffe stops after the first forward pass: Unknown learning rate policy"
        near = [each for each in _POLICIES if each == policy.lower()]
        fix = f'lr_policy: "{near[0] if near else "step"}"'
        fix += "; or train with that Caffe" if fork else ""
        yield Hit(said + f"; {fork} has it" * bool(fork), why, fix, at)
        return
    if policy in {"step", "sigmoid"} and message.stepsize < 1:
        why = "Caffe divides by it and dies in the first iteration"
        yield Hit(f"lr_policy {policy} without stepsize", why, "stepsize: ...", at)
    if policy in {"step", "exp", "multistep"} and message.gamma <= 0:
        why = "the learning rate is multiplied by 0 at the first step"
        yield Hit(f"lr_policy {policy} without gamma", why, "gamma: 0.94", at)
    elif policy in {"step", "exp", "multistep"} and message.gamma > 1:
        why = "the learning rate grows at every step"
        yield Hit(f"gamma: {message.gamma:g}", why, "gamma: 0.94", solver.at("gamma"), WARNING)
    if policy in {"inv", "poly"} and message.power == 0:
        why = "with a power of 0 the learning rate never changes"
        yield Hit(f"lr_policy {policy} without power", why, "power: 1", at, WARNING)
    if policy == "multistep":
        yield from _stepvalues(solver)


def _stepvalues(solver: PrototxtFile) -> Iterator[Hit]:
    values, at = list(solver.message.stepvalue), solver.at("stepvalue")
    if not values:
        why = "the learning rate never changes"
        yield Hit("lr_policy multistep without stepvalue", why, "stepvalue: ...", at, WARNING)
    elif values != sorted(values):
        why = "Caffe takes them one after the other and waits for the larger one first"
        yield Hit("stepvalue out of order", why, "sort them", at, WARNING)
    elif 0 < solver.message.max_iter <= values[-1]:
        what = f"stepvalue {values[-1]:,} lies behind max_iter"
        yield Hit(what, "it is never reached", "a larger max_iter", at, NOTE)


@rule("lr-vanishes", WARNING, "solver", _RATE)
def lr_vanishes(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """The learning rate is nothing for most of the run."""
    del evidence
    message = solver.message
    half = message.max_iter // 2
    start, middle = learning_rate(message, 0), learning_rate(message, half)
    if half < 1 or not start > 0 or not middle < _NOTHING * start:
        return
    low, high = 0, half
    while low < high:  # the rate of every policy but a growing one only falls
        place = (low + high) // 2
        low, high = (
            (low, place)
            if learning_rate(message, place) < _NOTHING * start
            else (
                place + 1,
                high,
            )
        )
    yield Hit(
        f"after {low:,} of {message.max_iter:,} iterations the learning rate is below a "
        "thousandth of base_lr",
        "most of the run changes next to nothing; is stepsize meant in other units (images, "
        "another batch)?",
        "a larger stepsize, or a smaller max_iter",
        solver.at("stepsize" if message.lr_policy in {"step", "sigmoid"} else "lr_policy"),
    )


@rule("run-length", WARNING, "solver", "solver.cpp: iterations are updates")
def run_length(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """The length of the run against the epochs that were said."""
    wanted = evidence.claims.epochs
    length = epochs(evidence, solver.message.max_iter)
    if wanted is None or length is None or abs(length - wanted) <= _CLOSE * wanted:
        return
    images, batch = num_train(evidence), effective_batch(evidence)
    assert images is not None
    assert batch is not None
    yield Hit(
        f"max_iter {solver.message.max_iter:,} is {length:.2f} epochs, not {wanted:g}",
        _units(evidence, length / wanted, solver.message.iter_size),
        f"max_iter: {round(wanted * images / batch)}",
        solver.at("max_iter"),
    )


@rule("lr-step-length", WARNING, "solver", f"{_RATE}; arXiv 1602.07261v2, section 4")
def lr_step_length(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """The stepsize against the epochs that were said, or the paper's two."""
    message, wanted = solver.message, evidence.claims.lr_decay_epochs
    length = epochs(evidence, message.stepsize)
    if message.lr_policy != "step" or message.stepsize < 1 or not length:
        return
    images, batch = num_train(evidence), effective_batch(evidence)
    assert images is not None
    assert batch is not None
    at = solver.at("stepsize")
    if wanted is not None:
        if abs(length - wanted) > _CLOSE * wanted:
            yield Hit(
                f"stepsize {message.stepsize:,} is {length:.3g} epochs, not {wanted:g}",
                _units(evidence, length / wanted, message.iter_size),
                f"stepsize: {round(wanted * images / batch)}",
                at,
            )
    elif math.isclose(message.gamma, 0.94, abs_tol=1e-4) and abs(length - 2) > _CLOSE * 2:
        yield Hit(
            f"gamma 0.94 every {length:.3g} epochs ({message.stepsize:,} iterations)",
            "the paper multiplies by 0.94 every two epochs. "
            + _units(evidence, length / 2, message.iter_size),
            f"stepsize: {round(2 * images / batch)}, if two epochs are meant",
            at,
            NOTE,
        )


def _units(evidence: Evidence, ratio: float, iter_size: int) -> str:
    """Whether a factor that was forgotten explains a length."""
    gpus = num_gpus(evidence)
    for factor, name in (
        (gpus * iter_size, "GPUs times iter_size"),
        (gpus, "the number of GPUs"),
        (iter_size, "iter_size"),
    ):
        if factor > 1 and math.isclose(ratio, factor, rel_tol=_CLOSE):
            return f"It is {factor} times as long: {name} was left out of the sum"
        if factor > 1 and math.isclose(ratio, 1 / factor, rel_tol=_CLOSE):
            return f"It is {factor} times as short: {name} counted twice"
    return (
        f"an epoch is {num_train(evidence):,} images at {effective_batch(evidence)} per iteration"
    )


@rule("tests", ERROR, "solver", "solver.cpp, InitTestNets, Step, Solve and Test")
def tests(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """Tests that Caffe refuses, or that never come."""
    message = solver.message
    interval, at = message.test_interval, solver.at("test_interval")
    if message.test_iter and interval < 1:
        why = "Caffe stops: Check failed: param_.test_interval() > 0"
        yield Hit("test_iter without test_interval", why, "test_interval: one epoch", at)
    elif not message.test_iter:
        yield from _without_tests(solver, evidence)
    elif max(message.test_iter) < 1:
        what = "test_iter: 0: tests measure nothing"
        why = "Caffe makes the test net and tests over no batch: its log shows no result"
        fix = "nothing, if that is meant; else validation images / TEST batch"
        yield Hit(what, why, fix, solver.at("test_iter"), NOTE)
    elif 0 < message.max_iter < interval:
        yield from _one_test_at_most(solver)
    elif message.max_iter % interval:
        last = message.max_iter // interval * interval
        what = f"the last test comes at {last:,}, the end at {message.max_iter:,}"
        why = "the final weights are tested only where test_interval divides max_iter"
        yield Hit(what, why, f"max_iter: {last} or {last + interval}", at, NOTE)


def _without_tests(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    net = train_net(evidence)
    if net is None:
        return
    why = "a run without tests says nothing about what it learned"
    if is_tested(net):
        what = "no test_iter: the TEST part of the net is never run"
        fix = "test_iter: validation images / TEST batch, and test_interval"
        yield Hit(what, why, fix, solver.at("test_iter"), WARNING)
    else:
        fix = "a TEST phase, test_iter, test_interval"
        yield Hit("no test net", why, fix, solver.at("test_interval"), NOTE)


def _one_test_at_most(solver: PrototxtFile) -> Iterator[Hit]:
    """A test_interval longer than the run; a much longer one is a way to switch tests off."""
    message, at = solver.message, solver.at("test_interval")
    what = f"test_interval {message.test_interval:,} is longer than the run"
    fix = "test_interval: one epoch"
    if message.test_initialization:
        why = "the only test is that at iteration 0, of weights that have learned nothing yet"
        yield Hit(what, why, fix, at, NOTE)
    else:
        is_off = message.test_interval >= _OFF * message.max_iter
        yield Hit(what, "no test is ever run", fix, at, NOTE if is_off else WARNING)


@rule("display", WARNING, "solver", "solver.cpp, Step")
def display(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """The log says nothing of the training loss."""
    del evidence
    message = solver.message
    if message.display < 1:
        why = "no training loss and no learning rate in the log: nothing to plot, no nan to see"
        yield Hit("display is unset or 0", why, "display: 20", solver.at("display"))
