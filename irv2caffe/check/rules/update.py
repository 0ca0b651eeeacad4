"""What moves the weights: the type of solver, momentum, decay, clipping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.check.arithmetic import train_net
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, PrototxtFile

TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")


_OFTEN_WITHOUT_DECAY = ("Adam", "AdaDelta", "AdaGrad")
_WITHOUT_MOMENTUM = ("RMSProp", "AdaGrad")


_PAPER = "arXiv 1602.07261v2, section 4"


def solver_type(message: Any) -> str:
    """The type, also of the old form, which names it in capitals."""
    if message.HasField("solver_type") and not message.HasField("type"):
        number = message.solver_type
        kind = message.DESCRIPTOR.fields_by_name["solver_type"].enum_type
        old = kind.values_by_number[number].name
        return next(name for name in TYPES if name.upper() == old)
    return str(message.type)


@rule("momentum-not-taken", ERROR, "solver", "sgd_solvers.hpp, RMSPropSolver and AdaGradSolver")
def momentum_not_taken(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """Momentum with a type that has none."""
    del evidence
    kind, momentum = solver_type(solver.message), solver.message.momentum
    if kind in _WITHOUT_MOMENTUM and momentum != 0:
        yield Hit(
            f"momentum: {momentum:g} with {kind}",
            f"Caffe stops: Momentum cannot be used with {kind}. TensorFlow's RMSProp has one, "
            "Caffe's has none",
            'type: "SGD" with this momentum, which RMSProp with delta 1 comes close to '
            "(recipe paper-sgd); or no momentum",
            solver.at("momentum"),
        )


@rule(
    "rmsprop-without-momentum", NOTE, "solver", "tensorflow/models, slim/train_image_classifier.py"
)
def rmsprop_without_momentum(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """TensorFlow's recipe has a momentum that Caffe's RMSProp cannot have."""
    del evidence
    message = solver.message
    if solver_type(message) == "RMSProp" and message.momentum == 0 and message.delta >= 0.1:
        yield Hit(
            "RMSProp with a large delta, and no momentum",
            "TF-slim's recipe adds a momentum of 0.9 to it, with which every gradient counts ten "
            "times: at the same base_lr the steps here are 10 times smaller in effect",
            "recipe paper-sgd: with delta 1 RMSProp is nearly SGD, and SGD has the momentum",
            solver.at("type"),
        )


@rule("rmsprop-delta", WARNING, "solver", f"rmsprop_solver.cpp, ComputeUpdateValue; {_PAPER}")
def rmsprop_delta(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """The delta against the learning rate and TensorFlow's epsilon."""
    message = solver.message
    if solver_type(message) != "RMSProp":
        return
    delta, unset = message.delta, "" if solver.says("delta") else " (unset)"
    net = train_net(evidence)
    if delta < 0.1 and message.base_lr > 0.0101:
        yield Hit(
            f"delta {delta:g}{unset} with base_lr {message.base_lr:g}",
            "gradients are divided by their own size plus delta: with a small delta every weight "
            "moves by about base_lr in every iteration. The paper's 0.045 goes with an epsilon of "
            "1.0",
            f"delta: 1.0, or base_lr: {min(0.001, message.base_lr):g}",
            solver.at("delta"),
        )
    elif net is not None and net.is_tensorflow_style and delta != 1 and delta >= 0.1:
        what = f"delta is {delta:g}, the paper's epsilon 1.0"
        why = "TensorFlow adds it inside of the root, Caffe outside; 1.0 is the translation"
        yield Hit(what, why, "delta: 1.0", solver.at("delta"), NOTE)


@rule("rms-decay", ERROR, "solver", "sgd_solvers.hpp, RMSPropSolver; caffe.proto")
def rms_decay(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """The decay of squared gradients."""
    del evidence
    message = solver.message
    if solver_type(message) != "RMSProp":
        return
    if not 0 <= message.rms_decay < 1:
        what, why = f"rms_decay: {message.rms_decay:g}", "Caffe stops: it lies between 0 and 1"
        yield Hit(what, why, "rms_decay: 0.9", solver.at("rms_decay"))
    elif not solver.says("rms_decay"):
        why = "the paper and TF-slim have 0.9"
        yield Hit("rms_decay unset: 0.99", why, "rms_decay: 0.9", solver.at(), NOTE, _PAPER)


@rule("momentum", NOTE, "solver", "sgd_solver.cpp and nesterov_solver.cpp, ComputeUpdateValue")
def momentum_of_sgd(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """Momentum of SGD and Nesterov."""
    del evidence
    kind, value = solver_type(solver.message), solver.message.momentum
    if kind not in {"SGD", "Nesterov"}:
        return
    at = solver.at("momentum")
    if value >= 1 or value < 0:
        why = "every update is added to the ones before without end: the run diverges"
        yield Hit(f"momentum: {value:g}", why, "momentum: 0.9", at, ERROR)
    elif value == 0:
        why = "a momentum of 0.9 makes every gradient count ten times: without it the same base_lr "
        why += "is a tenth of what recipes mean"
        yield Hit(f"{kind} without momentum", why, "momentum: 0.9", at)


@rule("weight-decay", WARNING, "solver", "caffe.proto, SolverParameter; sgd_solver.cpp, Regularize")
def weight_decay(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """No weight decay."""
    del evidence
    value, at = solver.message.weight_decay, solver.at("weight_decay")
    fix = "weight_decay: 4e-5 (TF-slim), 1e-4 (ResNet), 5e-4 (VGG)"
    if not solver.says("weight_decay"):
        why = "Caffe's default is none; papers that say nothing about it used their framework's"
        usual = solver_type(solver.message) in _OFTEN_WITHOUT_DECAY
        yield Hit("weight_decay is unset, which is 0", why, fix, at, NOTE if usual else None)
    elif value == 0:
        yield Hit("weight_decay: 0", "nothing but the data keeps weights small", fix, at, NOTE)
    elif value < 0:
        yield Hit(f"weight_decay: {value:g}", "it makes weights grow", fix, at, ERROR)


@rule("regularization-type", ERROR, "solver", "sgd_solver.cpp, Regularize")
def regularization_type(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """A regularization that Caffe does not have."""
    del evidence
    kind = solver.message.regularization_type
    if kind not in {"L1", "L2"} and solver.message.weight_decay:
        why = "Caffe stops in the first iteration: Unknown regularization type"
        at = solver.at("regularization_type")
        yield Hit(f"regularization_type: {kind[:60]!r}", why, 'regularization_type: "L2"', at)


@rule("clip-gradients", NOTE, "solver", "sgd_solver.cpp, ClipGradients and ApplyUpdate")
def clip_gradients(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """The bound on gradients against iter_size, or a bound of 0."""
    del evidence
    message, at = solver.message, solver.at("clip_gradients")
    if not solver.says("clip_gradients") or message.clip_gradients < 0:
        return
    if message.clip_gradients == 0:
        why = "every gradient is scaled to 0: nothing learns. Off is -1, or no line at all"
        yield Hit("clip_gradients: 0", why, "take the line out", at, ERROR)
    elif message.iter_size > 1:
        each = message.clip_gradients / message.iter_size
        yield Hit(
            f"clip_gradients {message.clip_gradients:g} with iter_size {message.iter_size}",
            "Caffe clips the sum over iter_size before it divides by it: the bound on the mean "
            f"gradient is {each:g}",
            f"nothing, if {each:g} is meant; clip_gradients: "
            f"{message.clip_gradients * message.iter_size:g}, if {message.clip_gradients:g} is",
            at,
        )
