"""The solver: what it would stop at, and what moves the weights."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from irv2caffe.net.check.arithmetic import (
    batch_per_gpu,
    effective_batch,
    num_gpus,
    train_net,
)
from irv2caffe.net.check.finding import ERROR, NOTE, WARNING, Hit, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.net.check.evidence import Evidence, PrototxtFile

_TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
_WITHOUT_MOMENTUM = ("RMSProp", "AdaGrad")
_PAPER = "arXiv 1602.07261v2, section 4"


def solver_type(message: Any) -> str:
    """The type, also of the old form, which names it in capitals."""
    if message.HasField("solver_type") and not message.HasField("type"):
        number = message.solver_type
        kind = message.DESCRIPTOR.fields_by_name["solver_type"].enum_type
        old = kind.values_by_number[number].name
        return next(name for name in _TYPES if name.upper() == old)
    return str(message.type)


@rule("solver-nets", ERROR, "solver", "solver.cpp, InitTrainNet and InitTestNets")
def solver_nets(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """Too many or too few nets, or test_iter for them."""
    del evidence
    message = solver.message
    names = ("net", "net_param", "train_net", "train_net_param")
    given = [name for name in names if message.HasField(name)]
    if len(given) != 1:
        what = f"{' and '.join(given)} name the training net" if given else "no training net"
        yield Hit(what, "Caffe stops: it wants exactly one", "net: ...", solver.at())
    tests = len(message.test_net) + len(message.test_net_param)
    generic = message.HasField("net") or message.HasField("net_param")
    wrong = len(message.test_iter) < tests if generic else len(message.test_iter) != tests
    if wrong:
        what = f"{len(message.test_iter)} test_iter for {tests} test_net"
        why = "Caffe stops: test_iter must be specified for each test network"
        yield Hit(what, why, "one test_iter for each", solver.at("test_iter"))
    if message.test_state and len(message.test_state) != len(message.test_iter):
        what = f"{len(message.test_state)} test_state for {len(message.test_iter)} test_iter"
        why = "Caffe stops: test_state must be unspecified or once per test net"
        yield Hit(what, why, "one test_state for each test_iter", solver.at("test_state"))


@rule("solver-type", ERROR, "solver", "solver_factory.hpp; upgrade_proto.cpp")
def unknown_type(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """A type of solver that Caffe does not have."""
    del evidence
    message = solver.message
    if message.HasField("type") and message.HasField("solver_type"):
        what = "both type and solver_type"
        yield Hit(what, "Caffe stops", "leave type", solver.at("solver_type"))
    elif solver_type(message) not in _TYPES:
        name = message.type[:60]
        near = [each for each in _TYPES if each.lower() == name.lower()]
        near = near or difflib.get_close_matches(name, _TYPES, n=1)
        fix = f'type: "{near[0]}"' if near else f"one of {', '.join(_TYPES)}"
        why = f"Caffe stops: Unknown solver type: {name}"
        yield Hit(f"type: {name!r}", why, fix, solver.at("type"))


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
        yield Hit("weight_decay is unset, which is 0", why, fix, at)
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


@rule("iter-size", ERROR, "solver", "solver.cpp, Step")
def iter_size(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """An iter_size or average_loss of no iteration."""
    del evidence
    if solver.message.iter_size < 1:
        why = "Caffe divides by it: the loss is nan, and Caffe exits 0"
        at = solver.at("iter_size")
        yield Hit(f"iter_size: {solver.message.iter_size}", why, "iter_size: 1", at)
    if solver.message.average_loss < 1:
        why = "Caffe stops: average_loss should be non-negative (it means 1 or more)"
        at = solver.at("average_loss")
        yield Hit(f"average_loss: {solver.message.average_loss}", why, "average_loss: 20", at)


@rule("effective-batch", NOTE, "solver", "BVLC's and NVCaffe's parallel.cpp; solver.cpp, Step")
def batch_of_an_update(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """Several batches make one update."""
    total, batch = effective_batch(evidence), batch_per_gpu(evidence)
    if total is None or total == batch:
        return
    flavor = evidence.claims.flavor
    how = (
        "BVLC Caffe gives every GPU a whole batch_size; NVCaffe would divide it among them"
        if flavor == "bvlc"
        else "NVCaffe divides batch_size among the GPUs; BVLC Caffe would give it whole to each"
    )
    yield Hit(
        f"{total} images per update: {batch} x {num_gpus(evidence)} device(s) x iter_size "
        f"{solver.message.iter_size}",
        f"{how}. base_lr, stepsize and max_iter count updates of this size",
        "nothing, if that is meant",
        solver.at("iter_size"),
    )


@rule("solver-mode", WARNING, "solver", "caffe.cpp, train; caffe.proto")
def solver_mode(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """The solver_mode is unset."""
    del evidence
    if not solver.says("solver_mode"):
        why = "the default of the file format is GPU, but caffe train without -gpu then takes the "
        why += "CPU, with one line in the log and much patience"
        yield Hit(
            "solver_mode is unset", why, "solver_mode: GPU, and caffe train -gpu", solver.at()
        )


@rule("random-seed", NOTE, "solver", "solver.cpp, Init; common.cpp")
def random_seed(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """Every run starts from other weights."""
    del evidence
    if solver.message.random_seed < 0:
        why = "fillers and crops are drawn from /dev/urandom: no run can be repeated"
        yield Hit("random_seed is unset", why, "random_seed: 1", solver.at("random_seed"))


@rule("shared-weights", ERROR, "solver", "parallel.cpp; github.com/BVLC/caffe issue 5538")
def shared_weights(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """Layers share weights, and several GPUs reduce layer by layer."""
    net = train_net(evidence)
    if net is None or evidence.claims.num_gpus < 2 or not solver.message.layer_wise_reduce:
        return
    names: set[str] = set()
    for layer in net.layers:
        for spec in layer.message.param:
            if spec.name and spec.name in names:
                why = "Caffe stops: Layer-wise reduce is not supported for nets with shared weights"
                what = f"layers share {spec.name[:60]!r}, on several GPUs"
                yield Hit(what, why, "layer_wise_reduce: false", layer.at("param"))
            names.add(spec.name)


@rule("verbose", NOTE, "solver", "net.cpp, ForwardDebugInfo; solver.cpp, Snapshot")
def verbose(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """Settings for the search for errors are on."""
    del evidence
    message = solver.message
    if message.debug_info:
        why = "several lines per layer at every display; it costs time and makes logs huge"
        yield Hit("debug_info: true", why, "take it out", solver.at("debug_info"))
    if message.snapshot_diff:
        why = "snapshots hold gradients too and are twice as large"
        yield Hit("snapshot_diff: true", why, "take it out", solver.at("snapshot_diff"))
