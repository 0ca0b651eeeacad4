"""The solver as a whole: its nets, its type, its batch, its device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.check.arithmetic import (
    batch_per_gpu,
    effective_batch,
    is_stepped_by_python,
    num_gpus,
)
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, Hits
from irv2caffe.check.registry import solver_rule
from irv2caffe.check.rules.update import TYPES, solver_type
from irv2caffe.errors import close_matches

if TYPE_CHECKING:
    from irv2caffe.check.evidence import SolverEvidence


@solver_rule("solver-nets", ERROR, "solver.cpp, InitTrainNet and InitTestNets")
def solver_nets(evidence: SolverEvidence) -> Hits:
    """Too many or too few nets, or another number of ``test_iter`` or ``test_state``."""
    solver, message = evidence.solver, evidence.solver.message
    names = [n for n in ("net", "net_param", "train_net", "train_net_param") if solver.has(n)]
    if len(names) != 1:
        yield Hit(
            what=f"{' and '.join(names)} name the training net" if names else "no training net",
            why="Caffe stops: it needs exactly one",
            fix="net: ...",
            at=solver.at(),
        )
    tests, iters = len(message.test_net) + len(message.test_net_param), len(message.test_iter)
    generic = solver.has("net") or solver.has("net_param")
    if iters < tests or (iters > tests and not generic):
        yield Hit(
            what=f"{iters} test_iter for {tests} test_net",
            why="Caffe stops: test_iter must be specified for each test network",
            fix="one test_iter for each",
            at=solver.at("test_iter"),
        )
    if message.test_state and len(message.test_state) != iters:
        yield Hit(
            what=f"{len(message.test_state)} test_state for {iters} test_iter",
            why="Caffe stops: test_state must be unspecified or once per test net",
            fix="one test_state for each test_iter",
            at=solver.at("test_state"),
        )


@solver_rule("solver-type", ERROR, "solver_factory.hpp; upgrade_proto.cpp")
def unknown_solver_type(evidence: SolverEvidence) -> Hits:
    """A type of solver that Caffe does not have."""
    solver = evidence.solver
    if solver.has("type") and solver.has("solver_type"):
        yield Hit(
            what="both type and solver_type",
            why="Caffe stops",
            fix="keep type",
            at=solver.at("solver_type"),
        )
    elif solver_type(solver.message) not in TYPES:
        name = solver.message.type[:60]
        same = [each for each in TYPES if each.lower() == name.lower()]
        near = same or close_matches(name, TYPES)
        yield Hit(
            what=f"type: {name!r}",
            why=f"Caffe stops: Unknown solver type: {name}",
            fix=f'type: "{near[0]}"' if near else f"one of {', '.join(TYPES)}",
            at=solver.at("type"),
        )


@solver_rule("iter-size", ERROR, "solver.cpp, Step")
def iter_size(evidence: SolverEvidence) -> Hits:
    """An ``iter_size`` or ``average_loss`` below 1."""
    solver, message = evidence.solver, evidence.solver.message
    if message.iter_size < 1:
        yield Hit(
            what=f"iter_size: {message.iter_size}",
            why="Caffe divides by it: the loss is nan, and Caffe exits 0",
            fix="iter_size: 1",
            at=solver.at("iter_size"),
        )
    if message.average_loss < 1:
        yield Hit(
            what=f"average_loss: {message.average_loss}",
            why="Caffe stops: average_loss should be non-negative (it means 1 or more)",
            fix="average_loss: 20",
            at=solver.at("average_loss"),
        )


@solver_rule("effective-batch", NOTE, "BVLC's and NVCaffe's parallel.cpp; solver.cpp, Step")
def several_batches_per_update(evidence: SolverEvidence) -> Hits:
    """Several batches per update."""
    total, batch = effective_batch(evidence), batch_per_gpu(evidence)
    if total is None or total == batch:
        return
    how = (
        "BVLC Caffe gives every GPU a whole batch_size; NVCaffe would divide it among them"
        if evidence.claims.flavor == "bvlc"
        else "NVCaffe divides batch_size among the GPUs; BVLC Caffe would give it whole to each"
    )
    yield Hit(
        what=f"{total} images per update: {batch} x {num_gpus(evidence)} device(s) x iter_size "
        f"{evidence.solver.message.iter_size}",
        why=f"{how}. base_lr, stepsize and max_iter count updates of this size",
        fix="no change, if that is intended",
        at=evidence.solver.at("iter_size"),
    )


@solver_rule("solver-mode", WARNING, "caffe.cpp, train; caffe.proto")
def solver_mode_unset(evidence: SolverEvidence) -> Hits:
    """No ``solver_mode``."""
    if not evidence.solver.has("solver_mode") and not is_stepped_by_python(evidence):
        yield Hit(
            what="solver_mode is unset",
            why="the default of the file format is GPU, but caffe train without -gpu then uses "
            "the much slower CPU, with only one line about it in the log",
            fix="solver_mode: GPU, and caffe train -gpu",
            at=evidence.solver.at(),
        )


@solver_rule("random-seed", NOTE, "solver.cpp, Init; common.cpp")
def random_seed_unset(evidence: SolverEvidence) -> Hits:
    """No ``random_seed``: every run starts from other weights."""
    if evidence.solver.message.random_seed < 0:
        yield Hit(
            what="random_seed is unset",
            why="fillers and crops are drawn from /dev/urandom: no run can be repeated",
            fix="random_seed: 1",
            at=evidence.solver.at("random_seed"),
        )


@solver_rule("shared-weights", ERROR, "parallel.cpp; github.com/BVLC/caffe issue 5538")
def shared_weights_on_gpus(evidence: SolverEvidence) -> Hits:
    """Layers that share weights, on several GPUs that reduce gradients layer by layer."""
    net, message = evidence.train_net, evidence.solver.message
    if net is None or evidence.claims.num_gpus < 2 or not message.layer_wise_reduce:
        return
    names: set[str] = set()
    for layer in net.layers:
        for spec in layer.message.param:
            if spec.name and spec.name in names:
                yield Hit(
                    what=f"layers share {spec.name[:60]!r}, on several GPUs",
                    why="Caffe stops: Layer-wise reduce is not supported for nets with shared "
                    "weights",
                    fix="layer_wise_reduce: false",
                    at=layer.at("param"),
                )
            names.add(spec.name)


@solver_rule("verbose", NOTE, "net.cpp, ForwardDebugInfo; solver.cpp, Snapshot")
def debugging_settings(evidence: SolverEvidence) -> Hits:
    """Settings for debugging."""
    for name, why in (
        ("debug_info", "several lines per layer at every display: slow, and a huge log"),
        ("snapshot_diff", "snapshots hold gradients too and are twice as large"),
    ):
        if getattr(evidence.solver.message, name):
            at = evidence.solver.at(name)
            yield Hit(what=f"{name}: true", why=why, fix="remove it", at=at)
