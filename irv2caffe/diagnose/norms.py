"""Norms: which statistics the BatchNorm layers of a run take in its tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.shapes.infer import NetShapes
from irv2caffe.shapes.memory import add, memory

if TYPE_CHECKING:
    from irv2caffe.check.evidence import PhaseNet
    from irv2caffe.diagnose.evidence import RunEvidence

_SHORT = 0.95  # a moving_average_fraction that averages over 20 iterations
_LARGE_BYTES = 4 << 30  # smaller nets fit any card


@dataclass(frozen=True)
class Norms:
    """The BatchNorm layers of a run.

    Attributes:
        num_layers: of the training net.
        num_batch: those whose tests take the mean and variance of the test's own batch.
        fraction: the largest ``moving_average_fraction``.
        test_batch: images in a batch of the test, or None.
        place: where ``use_global_stats: false`` is first written; empty without.
        test_bytes: memory of the test net, if it is worth a word, else 0.
    """

    num_layers: int
    num_batch: int
    fraction: float
    test_batch: int | None
    place: str
    test_bytes: int = 0


def cure_of_lag(norms: Norms | None) -> str:
    """What makes running statistics follow the weights."""
    if norms is not None and norms.fraction <= _SHORT:
        return "a lower base_lr; moving_average_fraction is low enough"
    return (
        "moving_average_fraction: 0.95 in BatchNorm (build-net --bn-fraction), or a lower base_lr"
    )


def norms_of(evidence: RunEvidence) -> Norms | None:
    """The BatchNorm layers; None if the net is not known."""
    train, test = evidence.net("TRAIN"), evidence.net("TEST")
    if train is None:
        return None
    layers = list(train.of_type("BatchNorm"))
    params = [layer.message.batch_norm_param for layer in layers]
    found = evidence.found("bn-batch-stats-in-test")
    if evidence.log is not None and evidence.log.fork == "NVCaffe":
        found = None  # its tests take running statistics whatever is written
    return Norms(
        num_layers=len(layers),
        num_batch=len(found.places) if found else 0,
        fraction=max((param.moving_average_fraction for param in params), default=0.0),
        test_batch=test.batch_size if test else None,
        place=str(found.places[0]) if found and found.places else "",
        test_bytes=_bytes(test) if found and test else 0,
    )


def _bytes(net: PhaseNet) -> int:
    """What the blobs and weights of a test net need; 0 if it is little, or not known."""
    if not net.infos:
        return 0
    shapes = NetShapes(str(net.message.name), net.phase, {}, net.infos)
    total = add(memory(shapes, backward=False)).total
    return total if total > _LARGE_BYTES else 0
