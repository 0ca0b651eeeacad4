"""What a run leaves behind, and the weights it starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.check.arithmetic import is_stepped_by_python, train_net
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, PrototxtFile

_LONG = 10_000
_TRIAL = 1000  # iterations of a run that tries something out, whose weights nobody wants
_WRITE = "solver.cpp, CheckSnapshotWritePermissions and Snapshot"


@rule("snapshot-folder", ERROR, "solver", f"{_WRITE}; github.com/BVLC/caffe issue 1394")
def snapshot_folder(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """Snapshots cannot be written."""
    facts = evidence.snapshots
    if facts is None or (facts.is_there and facts.is_writable):
        return
    at_start = solver.message.snapshot > 0
    state = "is not there" if not facts.is_there else "cannot be written"
    yield Hit(
        f"the folder {facts.folder} of snapshot_prefix {state}",
        "Caffe stops at the start: Cannot write to snapshot prefix"
        if at_start
        else "with snapshot: 0 Caffe finds out when it is done, and the weights are lost",
        f"mkdir -p {facts.folder}; irv2caffe train writes into its run folder",
        solver.at("snapshot_prefix"),
    )


@rule("snapshot-prefix", WARNING, "solver", _WRITE)
def snapshot_prefix(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """The snapshot_prefix is unset."""
    del evidence
    if solver.message.snapshot_prefix:
        return
    every = solver.message.snapshot > 0
    yield Hit(
        "snapshot_prefix is unset",
        "Caffe 1.0 stops: snapshot is specified but snapshot_prefix is not; builds of 2018 and "
        "later take the solver's name"
        if every
        else "the final weights go to _iter_N.caffemodel in the working folder, or to the solver's "
        "name in builds of 2018 and later",
        'snapshot_prefix: "snapshots/net"',
        solver.at("snapshot"),
        ERROR if every else None,
    )


@rule("snapshot-never", NOTE, "solver", "solver.cpp, Step and Solve")
def snapshot_never(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """Nothing is kept until the end, or not even then."""
    message = solver.message
    between = 0 < message.snapshot < message.max_iter
    at = solver.at("snapshot")
    if is_stepped_by_python(evidence):
        return
    if not between and not message.snapshot_after_train and message.snapshot != message.max_iter:
        what, why = "no snapshot at all", "the weights are lost when the run ends"
        is_trial = 0 < message.max_iter < _TRIAL
        yield Hit(what, why, "snapshot: one epoch", at, NOTE if is_trial else ERROR)
    elif not between and message.snapshot != message.max_iter:
        why = "a crash or a full disk loses the whole run"
        severity = WARNING if message.max_iter >= _LONG else None
        yield Hit("no snapshot before the end", why, "snapshot: one to ten epochs", at, severity)


@rule("snapshot-taken", WARNING, "solver", "solver.cpp, SnapshotFilename")
def snapshot_taken(solver: PrototxtFile, evidence: Evidence) -> Iterator[Hit]:
    """Other snapshots have the same prefix."""
    facts, at = evidence.snapshots, solver.at("snapshot_prefix")
    sharing = {WARNING: facts.shared_with, NOTE: facts.alternatives} if facts is not None else {}
    for severity, names in sharing.items():
        if names:
            has = "has" if len(names) == 1 else "have"
            what = f"{', '.join(names[:3])} {has} the same snapshot_prefix"
            why = "two runs overwrite each other's snapshots, iteration by iteration"
            yield Hit(what, why, "a snapshot_prefix for each", at, severity)
    if facts is not None and facts.existing:
        what = f"{len(facts.existing)} snapshots of this prefix are there, {facts.existing[-1]}"
        why = "a new run overwrites those of the same iterations"
        yield Hit(what, why, "another prefix, or go on from them with -snapshot", at, NOTE)


@rule("weights-shape", ERROR, "run", "net.cpp, Net::CopyTrainedLayersFrom")
def weights_shape(evidence: Evidence) -> Iterator[Hit]:
    """Weights to start from that do not fit."""
    weights, net = evidence.claims.weights, train_net(evidence)
    if weights is None or net is None or not net.infos:
        return
    fitting = 0
    for layer, info in zip(net.layers, net.infos, strict=True):
        loaded = weights.get(layer.name)
        if loaded is None or not info.params:
            continue
        fitting += 1
        if [_bare(shape) for shape in loaded] != [_bare(shape) for shape in info.params]:
            yield Hit(
                f"weights of shape {_text(loaded)} for a layer of {_text(info.params)}",
                "Caffe stops: Cannot copy param, shape mismatch; it finds layers by their names",
                "another name for the layer, if it is to learn anew",
                layer.at("name"),
            )
    if not fitting:
        yield Hit(
            "no layer of the net has weights in the file",
            "Caffe finds them by name, and goes on without a word where there is none",
            "the names of the net that was trained",
            net.file.at(),
        )


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without leading ones: old files have four axes where new ones have as many as needed."""
    start = next((place for place, size in enumerate(shape) if size != 1), len(shape))
    return tuple(shape[start:])


def _text(shapes: tuple[tuple[int, ...], ...]) -> str:
    return ", ".join("x".join(map(str, shape)) or "1" for shape in shapes)
