"""Numbers of training images of the classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.check.arithmetic import comparisons
from irv2caffe.check.finding import NOTE, WARNING, Hit, Hits
from irv2caffe.check.registry import net_rule
from irv2caffe.errors import first_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from irv2caffe.check.evidence import Layer, NetEvidence
    from irv2caffe.data.inspect.database import Database

_UNEVEN = 3  # times as many images in the largest class as in the smallest; ILSVRC12 has 1.8
_RARE = 10
_NAMED = 3


def _counted(evidence: NetEvidence) -> Iterator[tuple[Layer, Layer, Database]]:
    """Losses, the data layers that their labels come from, and what is known of these."""
    for loss, _, data in comparisons(evidence.net):
        facts = None if data is None else evidence.facts_of(data)
        if data is not None and facts is not None and loss.type != "Accuracy":
            yield loss, data, facts


@net_rule(
    "class-imbalance", WARNING, "arXiv 1710.05381 (Buda et al.); infogain_loss_layer.cpp", "TRAIN"
)
def class_imbalance(evidence: NetEvidence) -> Hits:
    """Classes with far fewer training images than others, in a loss that counts images equally."""
    for loss, data, facts in _counted(evidence):
        counts = facts.class_counts
        present = [count for count in counts if count]
        matrix = evidence.blobs.get(loss.message.infogain_loss_param.source)
        if not present or (matrix is not None and matrix.weights_classes):
            continue
        least, most = min(present), max(present)
        if most < _UNEVEN * least:
            continue
        limit = most / (_RARE if most >= _RARE * least else _UNEVEN)
        rare = [label for label, count in enumerate(counts) if 0 < count <= limit]
        named = first_of([f"{_name(facts, label)} ({counts[label]:,})" for label in rare], _NAMED)
        largest = _name(facts, counts.index(most))
        yield Hit(
            what=f"the training classes have {least:,} to {most:,} images; few: {named}",
            why=f"the loss counts every image the same: a net that always answers {largest} is "
            f"right for {100 * most / sum(counts):.0f} % of them; rare classes are learned last, "
            "and the accuracy over all images hardly shows it",
            fix="make-lmdb --balance repeats images of the rare classes, build-net --class-weights "
            "balanced weights them in the loss; irv2caffe evaluate shows the recall of each class",
            at=data.at_data("source"),
            severity=None if most >= _RARE * least else NOTE,
        )


@net_rule("class-empty", WARNING, "softmax_loss_layer.cpp, Forward_cpu", "TRAIN")
def class_empty(evidence: NetEvidence) -> Hits:
    """Classes of ``labels.txt`` without a training image."""
    for _, data, facts in _counted(evidence):
        counts = facts.class_counts
        empty = [label for label in range(len(facts.class_names)) if not _count(counts, label)]
        if counts and empty:
            named = first_of([_name(facts, label) for label in empty], _NAMED)
            yield Hit(
                what=f"no training image of {len(empty):,} of {len(facts.class_names):,} classes: "
                f"{named}",
                why="their outputs only learn to be small: no image is ever classified as one of "
                "them",
                fix="add images of these classes, or build the database without them",
                at=data.at_data("source"),
            )


def _count(counts: Sequence[int], label: int) -> int:
    return counts[label] if label < len(counts) else 0


def _name(facts: Database, label: int) -> str:
    """The name of a class, or its label."""
    names = facts.class_names
    return repr(names[label][:40]) if label < len(names) else f"label {label}"
