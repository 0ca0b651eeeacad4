"""Settings of weight updates: solver type, momentum, weight decay, gradient clipping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, Hits
from irv2caffe.check.registry import solver_rule

if TYPE_CHECKING:
    from irv2caffe.check.evidence import SolverEvidence

TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
_OFTEN_WITHOUT_DECAY = ("Adam", "AdaDelta", "AdaGrad")
_WITHOUT_MOMENTUM = ("RMSProp", "AdaGrad")
_PAPER = "arXiv 1602.07261v2, section 4"


def solver_type(message: Any) -> str:
    """The type of a solver, also from the old field ``solver_type``."""
    if message.HasField("solver_type") and not message.HasField("type"):
        kind = message.DESCRIPTOR.fields_by_name["solver_type"].enum_type
        old = kind.values_by_number[message.solver_type].name
        return next(name for name in TYPES if name.upper() == old)
    return str(message.type)


@solver_rule("momentum-not-taken", ERROR, "sgd_solvers.hpp, RMSPropSolver and AdaGradSolver")
def momentum_not_taken(evidence: SolverEvidence) -> Hits:
    """Momentum with a solver type that has none."""
    kind, momentum = solver_type(evidence.solver.message), evidence.solver.message.momentum
    if kind in _WITHOUT_MOMENTUM and momentum != 0:
        yield Hit(
            what=f"momentum: {momentum:g} with {kind}",
            why=f"Caffe stops: Momentum cannot be used with {kind}. TensorFlow's RMSProp has one, "
            "Caffe's has none",
            fix='type: "SGD" with this momentum, which RMSProp with delta 1 comes close to '
            "(recipe paper-sgd); or no momentum",
            at=evidence.solver.at("momentum"),
        )


@solver_rule("rmsprop-without-momentum", NOTE, "tensorflow/models, slim/train_image_classifier.py")
def rmsprop_without_momentum(evidence: SolverEvidence) -> Hits:
    """TensorFlow's RMSProp recipe without its momentum, which Caffe's RMSProp cannot have."""
    message = evidence.solver.message
    if solver_type(message) == "RMSProp" and message.momentum == 0 and message.delta >= 0.1:
        yield Hit(
            what="RMSProp with a large delta, and no momentum",
            why="TF-slim's recipe adds a momentum of 0.9 to it, with which every gradient counts "
            "ten times: at the same base_lr the steps here are 10 times smaller in effect",
            fix="recipe paper-sgd: with delta 1 RMSProp is nearly SGD, and SGD has the momentum",
            at=evidence.solver.at("type"),
        )


@solver_rule("rmsprop-delta", WARNING, f"rmsprop_solver.cpp, ComputeUpdateValue; {_PAPER}")
def rmsprop_delta(evidence: SolverEvidence) -> Hits:
    """A ``delta`` of RMSProp that does not fit the learning rate, or TensorFlow's epsilon."""
    solver, message, net = evidence.solver, evidence.solver.message, evidence.train_net
    if solver_type(message) != "RMSProp":
        return
    delta, unset = message.delta, "" if solver.has("delta") else " (unset)"
    if delta < 0.1 and message.base_lr > 0.0101:
        yield Hit(
            what=f"delta {delta:g}{unset} with base_lr {message.base_lr:g}",
            why="gradients are divided by their own size plus delta: with a small delta every "
            "weight moves by about base_lr in every iteration. The paper's 0.045 goes with an "
            "epsilon of 1.0",
            fix=f"delta: 1.0, or base_lr: {min(0.001, message.base_lr):g}",
            at=solver.at("delta"),
        )
    elif net is not None and net.is_tensorflow_style and delta != 1 and delta >= 0.1:
        yield Hit(
            what=f"delta is {delta:g}, the paper's epsilon 1.0",
            why="TensorFlow adds it inside of the root, Caffe outside; 1.0 is the translation",
            fix="delta: 1.0",
            at=solver.at("delta"),
            severity=NOTE,
        )


@solver_rule("rms-decay", ERROR, "sgd_solvers.hpp, RMSPropSolver; caffe.proto")
def rms_decay(evidence: SolverEvidence) -> Hits:
    """An ``rms_decay`` out of range, or unset."""
    solver, message = evidence.solver, evidence.solver.message
    if solver_type(message) != "RMSProp":
        return
    if not 0 <= message.rms_decay < 1:
        yield Hit(
            what=f"rms_decay: {message.rms_decay:g}",
            why="Caffe stops: it must be between 0 and 1",
            fix="rms_decay: 0.9",
            at=solver.at("rms_decay"),
        )
    elif not solver.has("rms_decay"):
        yield Hit(
            what="rms_decay unset: 0.99",
            why="the paper and TF-slim have 0.9",
            fix="rms_decay: 0.9",
            at=solver.at(),
            severity=NOTE,
            source=_PAPER,
        )


@solver_rule("momentum", NOTE, "sgd_solver.cpp and nesterov_solver.cpp, ComputeUpdateValue")
def momentum_of_sgd(evidence: SolverEvidence) -> Hits:
    """SGD or Nesterov without momentum, or with one out of range."""
    kind, value = solver_type(evidence.solver.message), evidence.solver.message.momentum
    if kind not in {"SGD", "Nesterov"} or not (value >= 1 or value <= 0):
        return
    yield Hit(
        what=f"momentum: {value:g}" if value else f"{kind} without momentum",
        why="every update is added to the ones before without end: the run diverges"
        if value
        else "a momentum of 0.9 makes every gradient count ten times: without it the same base_lr "
        "is a tenth of what recipes mean",
        fix="momentum: 0.9",
        at=evidence.solver.at("momentum"),
        severity=ERROR if value else None,
    )


@solver_rule("weight-decay", WARNING, "caffe.proto, SolverParameter; sgd_solver.cpp, Regularize")
def weight_decay(evidence: SolverEvidence) -> Hits:
    """No weight decay, or a negative one."""
    solver, value = evidence.solver, evidence.solver.message.weight_decay
    at = solver.at("weight_decay")
    fix = "weight_decay: 4e-5 (TF-slim), 1e-4 (ResNet), 5e-4 (VGG)"
    if not solver.has("weight_decay"):
        yield Hit(
            what="weight_decay is unset, which is 0",
            why="Caffe's default is none; papers that do not mention it used the default of "
            "their framework",
            fix=fix,
            at=at,
            severity=NOTE if solver_type(solver.message) in _OFTEN_WITHOUT_DECAY else None,
        )
    elif value == 0:
        why = "there is no regularization of the weights"
        yield Hit(what="weight_decay: 0", why=why, fix=fix, at=at, severity=NOTE)
    elif value < 0:
        what, why = f"weight_decay: {value:g}", "it makes weights grow"
        yield Hit(what=what, why=why, fix=fix, at=at, severity=ERROR)


@solver_rule("regularization-type", ERROR, "sgd_solver.cpp, Regularize")
def unknown_regularization_type(evidence: SolverEvidence) -> Hits:
    """A regularization that Caffe does not have."""
    message = evidence.solver.message
    if message.regularization_type not in {"L1", "L2"} and message.weight_decay:
        yield Hit(
            what=f"regularization_type: {message.regularization_type[:60]!r}",
            why="Caffe stops in the first iteration: Unknown regularization type",
            fix='regularization_type: "L2"',
            at=evidence.solver.at("regularization_type"),
        )


@solver_rule("clip-gradients", NOTE, "sgd_solver.cpp, ClipGradients and ApplyUpdate")
def clip_gradients(evidence: SolverEvidence) -> Hits:
    """A bound on gradients of 0, or one that ``iter_size`` makes smaller."""
    solver, message = evidence.solver, evidence.solver.message
    bound, at = message.clip_gradients, solver.at("clip_gradients")
    if not solver.has("clip_gradients") or bound < 0:
        return
    if bound == 0:
        yield Hit(
            what="clip_gradients: 0",
            why="every gradient is scaled to 0: nothing learns. Off is -1, or no line at all",
            fix="remove the line",
            at=at,
            severity=ERROR,
        )
    elif message.iter_size > 1:
        each = bound / message.iter_size
        yield Hit(
            what=f"clip_gradients {bound:g} with iter_size {message.iter_size}",
            why="Caffe clips the sum over iter_size before it divides by it: the bound on the mean "
            f"gradient is {each:g}",
            fix=f"no change if {each:g} is intended; clip_gradients: {bound * message.iter_size:g} "
            f"if {bound:g} is",
            at=at,
        )
