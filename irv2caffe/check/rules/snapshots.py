"""Snapshots of a run, and the weights it starts from."""

from __future__ import annotations

from itertools import dropwhile
from typing import TYPE_CHECKING

from irv2caffe.check.arithmetic import is_stepped_by_python
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, Hits
from irv2caffe.check.registry import rule, solver_rule
from irv2caffe.check.rules.grid import shapes_text

if TYPE_CHECKING:
    from irv2caffe.check.evidence import Evidence, SolverEvidence
    from irv2caffe.shapes.layer_types import Shape

_LONG = 10_000
_TRIAL = 1000  # iterations of a short run whose weights are not needed
_WRITE = "solver.cpp, CheckSnapshotWritePermissions and Snapshot"


@solver_rule("snapshot-folder", ERROR, f"{_WRITE}; github.com/BVLC/caffe issue 1394")
def snapshot_folder(evidence: SolverEvidence) -> Hits:
    """A folder that snapshots cannot be written to."""
    solver, facts = evidence.solver, evidence.snapshots
    if facts is not None and not (facts.is_there and facts.is_writable):
        state = "cannot be written" if facts.is_there else "does not exist"
        yield Hit(
            what=f"the folder {facts.folder} of snapshot_prefix {state}",
            why="Caffe stops at the start: Cannot write to snapshot prefix"
            if solver.message.snapshot > 0
            else "with snapshot: 0 Caffe fails at the end of the run, and the weights are lost",
            fix=f"mkdir -p {facts.folder}; irv2caffe train writes into its run folder",
            at=solver.at("snapshot_prefix"),
        )


@solver_rule("snapshot-prefix", WARNING, _WRITE)
def snapshot_prefix(evidence: SolverEvidence) -> Hits:
    """No ``snapshot_prefix``."""
    message = evidence.solver.message
    if message.snapshot_prefix:
        return
    yield Hit(
        what="snapshot_prefix is unset",
        why="Caffe 1.0 stops: snapshot is specified but snapshot_prefix is not; builds of 2018 and "
        "later take the solver's name"
        if message.snapshot > 0
        else "the final weights go to _iter_N.caffemodel in the working folder, or to the solver's "
        "name in builds of 2018 and later",
        fix='snapshot_prefix: "snapshots/net"',
        at=evidence.solver.at("snapshot"),
        severity=ERROR if message.snapshot > 0 else None,
    )


@solver_rule("snapshot-never", NOTE, "solver.cpp, Step and Solve")
def snapshot_never(evidence: SolverEvidence) -> Hits:
    """No snapshot before the end of the run, or none at all."""
    message, length = evidence.solver.message, evidence.solver.message.max_iter
    if 0 < message.snapshot < length or message.snapshot == length:
        return
    if is_stepped_by_python(evidence):
        return
    if message.snapshot_after_train:
        yield Hit(
            what="no snapshot before the end",
            why="a crash or a full disk loses the whole run",
            fix="snapshot: one to ten epochs",
            at=evidence.solver.at("snapshot"),
            severity=WARNING if length >= _LONG else None,
        )
    else:
        yield Hit(
            what="no snapshot at all",
            why="the weights are lost when the run ends",
            fix="snapshot: one epoch",
            at=evidence.solver.at("snapshot"),
            severity=NOTE if 0 < length < _TRIAL else ERROR,
        )


@solver_rule("snapshot-taken", WARNING, "solver.cpp, SnapshotFilename")
def snapshot_taken(evidence: SolverEvidence) -> Hits:
    """A ``snapshot_prefix`` that another solver or run uses."""
    facts, at = evidence.snapshots, evidence.solver.at("snapshot_prefix")
    if facts is None:
        return
    for severity, names in ((WARNING, facts.shared_with), (NOTE, facts.alternatives)):
        if names:
            yield Hit(
                what=f"{', '.join(names[:3])} {'have' if names[1:] else 'has'} the same "
                "snapshot_prefix",
                why="two runs overwrite each other's snapshots, iteration by iteration",
                fix="a snapshot_prefix for each",
                at=at,
                severity=severity,
            )
    if facts.existing:
        yield Hit(
            what=f"{len(facts.existing)} snapshots of this prefix exist, {facts.existing[-1]}",
            why="a new run overwrites those of the same iterations",
            fix="use another prefix, or continue from them with -snapshot",
            at=at,
            severity=NOTE,
        )


@rule("weights-shape", ERROR, "net.cpp, Net::CopyTrainedLayersFrom")
def weights_shape(evidence: Evidence) -> Hits:
    """Weights to start from that do not fit the net."""
    weights, net = evidence.claims.weights, evidence.train_net
    if weights is None or net is None or not net.infos:
        return
    found = 0
    for layer, info in zip(net.layers, net.infos, strict=True):
        loaded = weights.get(layer.name)
        if loaded is None or not info.params:
            continue
        found += 1
        if _without_leading_ones(loaded) != _without_leading_ones(info.params):
            yield Hit(
                what=f"weights of shape {shapes_text(loaded)} for a layer of "
                f"{shapes_text(info.params)}",
                why="Caffe stops: Cannot copy param, shape mismatch; it finds layers by their "
                "names",
                fix="rename the layer, if it should be trained from scratch; build-net "
                "--classifier NAME does it",
                at=layer.at("name"),
            )
    if not found:
        yield Hit(
            what="no layer of the net has weights in the file",
            why="Caffe finds weights by layer name, and ignores layers without weights silently",
            fix="the names of the net that was trained",
            at=net.file.at(),
        )


def _without_leading_ones(shapes: tuple[Shape, ...]) -> list[list[int]]:
    """Shapes without leading axes of size 1, which old files add up to four axes."""
    return [list(dropwhile(lambda size: size == 1, shape)) for shape in shapes]
