"""The solver as a whole: its nets, its type, its batch, its device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.check.arithmetic import (
    batch_per_gpu,
    effective_batch,
    is_stepped_by_python,
    num_gpus,
    train_net,
)
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, rule
from irv2caffe.check.rules.update import TYPES, solver_type
from irv2caffe.errors import close_matches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, PrototxtFile


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
    elif solver_type(message) not in TYPES:
        name = message.type[:60]
        same = [each for each in TYPES if each.lower() == name.lower()]
        near = same or close_matches(name, TYPES)
        fix = f'type: "{near[0]}"' if near else f"one of {', '.join(TYPES)}"
        why = f"Caffe stops: Unknown solver type: {name}"
        yield Hit(f"type: {name!r}", why, fix, solver.at("type"))


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
    if not solver.says("solver_mode") and not is_stepped_by_python(evidence):
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
