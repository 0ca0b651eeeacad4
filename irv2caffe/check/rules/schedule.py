"""Length of the run, interval of tests, and learning rate policy."""

from __future__ import annotations

import bisect
import math
from typing import TYPE_CHECKING, Any

from irv2caffe.check import fork_fields
from irv2caffe.check.arithmetic import (
    epochs,
    forgotten_factor,
    is_stepped_by_python,
    iterations_per_epoch,
    learning_rate,
)
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, Hits
from irv2caffe.check.registry import solver_rule
from irv2caffe.check.roles import is_tested

if TYPE_CHECKING:
    from irv2caffe.check.evidence import PrototxtFile, SolverEvidence

_POLICIES = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")
_RATE = "sgd_solver.cpp, GetLearningRate"
_TOLERANCE = 0.05  # of a number of epochs
_VANISHED = 1e-3  # of base_lr
_TESTS_OFF = 100  # a test_interval of this many times max_iter switches tests off


@solver_rule("max-iter", ERROR, "solver.cpp, Solve")
def max_iter(evidence: SolverEvidence) -> Hits:
    """A run without iterations."""
    solver, value = evidence.solver, evidence.solver.message.max_iter
    if value < 1:
        is_unused = is_stepped_by_python(evidence) and not solver.has("max_iter")
        yield Hit(
            what=f"max_iter is {value if solver.has('max_iter') else 'missing'}",
            why="caffe train ends at once, and exits 0; a script that steps the solver does not "
            "read it"
            if is_unused
            else "Caffe ends at once, and exits 0",
            fix="max_iter: ...",
            at=solver.at("max_iter"),
            severity=NOTE if is_unused else None,
        )


@solver_rule("base-lr", ERROR, _RATE)
def base_lr(evidence: SolverEvidence) -> Hits:
    """A learning rate of 0 or less."""
    solver, value = evidence.solver, evidence.solver.message.base_lr
    if value <= 0:
        yield Hit(
            what=f"base_lr is {f'{value:g}' if solver.has('base_lr') else 'missing, which is 0'}",
            why="nothing changes" if value == 0 else "every step increases the loss",
            fix="base_lr: 0.045",
            at=solver.at("base_lr"),
        )


@solver_rule("lr-policy", ERROR, _RATE)
def lr_policy(evidence: SolverEvidence) -> Hits:
    """An ``lr_policy`` that Caffe does not have, or that lacks its settings."""
    solver, message = evidence.solver, evidence.solver.message
    policy, at = str(message.lr_policy), solver.at("lr_policy")
    if policy not in _POLICIES:
        yield _unknown_policy(solver, policy)
        return
    if policy in {"step", "sigmoid"} and message.stepsize < 1:
        yield Hit(
            what=f"lr_policy {policy} without stepsize",
            why="Caffe divides by it and crashes in the first iteration",
            fix="stepsize: ...",
            at=at,
        )
    if policy in {"step", "exp", "multistep"} and message.gamma <= 0:
        yield Hit(
            what=f"lr_policy {policy} without gamma",
            why="the learning rate is multiplied by 0 at the first step",
            fix="gamma: 0.94",
            at=at,
        )
    elif policy in {"step", "exp", "multistep"} and message.gamma > 1:
        yield Hit(
            what=f"gamma: {message.gamma:g}",
            why="the learning rate grows at every step",
            fix="gamma: 0.94",
            at=solver.at("gamma"),
            severity=WARNING,
        )
    if policy in {"inv", "poly"} and message.power == 0:
        yield Hit(
            what=f"lr_policy {policy} without power",
            why="with a power of 0 the learning rate never changes",
            fix="power: 1",
            at=at,
            severity=WARNING,
        )
    if policy == "multistep":
        yield from _stepvalues(solver)


def _unknown_policy(solver: PrototxtFile, policy: str) -> Hit:
    fork = fork_fields.POLICIES.get(policy, "")
    near = policy.lower() if policy.lower() in _POLICIES else "step"
    what = f"lr_policy: {policy[:60]!r}" if policy else "lr_policy is missing"
    return Hit(
        what=what + (f"; {fork} has it" if fork else ""),
        why="Caffe stops after the first forward pass: Unknown learning rate policy",
        fix=f'lr_policy: "{near}"' + ("; or train with that Caffe" if fork else ""),
        at=solver.at("lr_policy"),
    )


def _stepvalues(solver: PrototxtFile) -> Hits:
    values, at = list(solver.message.stepvalue), solver.at("stepvalue")
    if not values:
        yield Hit(
            what="lr_policy multistep without stepvalue",
            why="the learning rate never changes",
            fix="stepvalue: ...",
            at=at,
            severity=WARNING,
        )
    elif values != sorted(values):
        yield Hit(
            what="stepvalue out of order",
            why="Caffe uses them in the order written, and waits for the larger one first",
            fix="sort them",
            at=at,
            severity=WARNING,
        )
    elif 0 < solver.message.max_iter <= values[-1]:
        yield Hit(
            what=f"stepvalue {values[-1]:,} is not below max_iter",
            why="it is never reached",
            fix="a larger max_iter",
            at=at,
            severity=NOTE,
        )


@solver_rule("lr-vanishes", WARNING, _RATE)
def lr_vanishes(evidence: SolverEvidence) -> Hits:
    """A learning rate near 0 for most of the run."""
    message = evidence.solver.message
    middle, start = message.max_iter // 2, learning_rate(message, 0)

    def has_vanished(iteration: int) -> bool:
        return learning_rate(message, iteration) < _VANISHED * start

    if middle < 1 or not start > 0 or not has_vanished(middle):
        return
    # The rate only falls with every policy, unless gamma is above 1.
    first = bisect.bisect_left(range(middle), True, key=has_vanished)
    yield Hit(
        what=f"after {first:,} of {message.max_iter:,} iterations the learning rate is below a "
        "thousandth of base_lr",
        why="most of the run changes almost nothing; stepsize may be meant in other units (images, "
        "another batch)",
        fix="a larger stepsize, or a smaller max_iter",
        at=evidence.solver.at(
            "stepsize" if message.lr_policy in {"step", "sigmoid"} else "lr_policy"
        ),
    )


@solver_rule("run-length", WARNING, "solver.cpp: iterations are updates")
def run_length(evidence: SolverEvidence) -> Hits:
    """A ``max_iter`` that is not the number of epochs that the user gave."""
    solver, wanted = evidence.solver, evidence.claims.epochs
    length, epoch = epochs(evidence, solver.message.max_iter), iterations_per_epoch(evidence)
    if wanted is None or length is None or epoch is None:
        return
    if abs(length - wanted) > _TOLERANCE * wanted:
        yield Hit(
            what=f"max_iter {solver.message.max_iter:,} is {length:.2f} epochs, not {wanted:g}",
            why=forgotten_factor(evidence, length / wanted),
            fix=f"max_iter: {round(wanted * epoch)}",
            at=solver.at("max_iter"),
        )


@solver_rule("lr-step-length", WARNING, f"{_RATE}; arXiv 1602.07261v2, section 4")
def lr_step_length(evidence: SolverEvidence) -> Hits:
    """A ``stepsize`` that is not the number of epochs that the user gave, or the paper's two."""
    message, wanted = evidence.solver.message, evidence.claims.lr_decay_epochs
    length, epoch = epochs(evidence, message.stepsize), iterations_per_epoch(evidence)
    if message.lr_policy != "step" or message.stepsize < 1 or not length or epoch is None:
        return
    at = evidence.solver.at("stepsize")
    if wanted is not None:
        if abs(length - wanted) > _TOLERANCE * wanted:
            yield Hit(
                what=f"stepsize {message.stepsize:,} is {length:.3g} epochs, not {wanted:g}",
                why=forgotten_factor(evidence, length / wanted),
                fix=f"stepsize: {round(wanted * epoch)}",
                at=at,
            )
    elif (
        math.isclose(message.gamma, 0.94, abs_tol=1e-4)
        and abs(length - 2) > _TOLERANCE * 2
        and not _has_papers_steps(message)
    ):
        yield Hit(
            what=f"gamma 0.94 every {length:.3g} epochs ({message.stepsize:,} iterations)",
            why="the paper multiplies by 0.94 every two epochs. "
            + forgotten_factor(evidence, length / 2),
            fix=f"stepsize: {round(2 * epoch)} for two epochs",
            at=at,
            severity=NOTE,
        )


def _has_papers_steps(message: Any) -> bool:
    """Whether a run of another length has the paper's 60 steps, as build-net derives them."""
    expected = message.max_iter / 60
    return bool(abs(message.stepsize - expected) <= max(1, 0.15 * expected))


@solver_rule("tests", ERROR, "solver.cpp, InitTestNets, Step, Solve and Test")
def tests(evidence: SolverEvidence) -> Hits:
    """Tests that Caffe refuses, that never run, or that miss the end of the run."""
    solver, message = evidence.solver, evidence.solver.message
    interval, length, at = message.test_interval, message.max_iter, solver.at("test_interval")
    if message.test_iter and interval < 1:
        yield Hit(
            what="test_iter without test_interval",
            why="Caffe stops: Check failed: param_.test_interval() > 0",
            fix="test_interval: one epoch",
            at=at,
        )
    elif not message.test_iter:
        yield from _without_tests(evidence)
    elif max(message.test_iter) < 1:
        yield Hit(
            what="test_iter: 0: tests measure nothing",
            why="Caffe makes the test net and tests over no batch: its log shows no result",
            fix="nothing, if that is meant; else validation images / TEST batch",
            at=solver.at("test_iter"),
            severity=NOTE,
        )
    elif 0 < length < interval:
        is_off = message.test_initialization or interval >= _TESTS_OFF * length
        yield Hit(
            what=f"test_interval {interval:,} is longer than the run",
            why="the only test is at iteration 0, before any training"
            if message.test_initialization
            else "no test is ever run",
            fix="test_interval: one epoch",
            at=at,
            severity=NOTE if is_off else WARNING,
        )
    elif length % interval:
        last = length // interval * interval
        yield Hit(
            what=f"the last test comes at {last:,}, the end at {length:,}",
            why="the final weights are tested only where test_interval divides max_iter",
            fix=f"max_iter: {last} or {last + interval}",
            at=at,
            severity=NOTE,
        )


def _without_tests(evidence: SolverEvidence) -> Hits:
    if evidence.train_net is None:
        return
    has_test_part = is_tested(evidence.train_net)
    yield Hit(
        what="no test_iter: the TEST part of the net is never run"
        if has_test_part
        else "no test net",
        why="a run without tests does not show what it learned",
        fix="test_iter: validation images / TEST batch, and test_interval"
        if has_test_part
        else "a TEST phase, test_iter, test_interval",
        at=evidence.solver.at("test_iter" if has_test_part else "test_interval"),
        severity=WARNING if has_test_part else NOTE,
    )


@solver_rule("display", WARNING, "solver.cpp, Step")
def display(evidence: SolverEvidence) -> Hits:
    """A log without the training loss."""
    if evidence.solver.message.display < 1:
        yield Hit(
            what="display is unset or 0",
            why="no training loss and no learning rate in the log: nothing to plot, no nan to see",
            fix="display: 20",
            at=evidence.solver.at("display"),
        )
