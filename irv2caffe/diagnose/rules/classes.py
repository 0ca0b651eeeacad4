"""Classes with few images, and nets that know only one class."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from irv2caffe.check.finding import Severity
from irv2caffe.diagnose.cures import evaluate
from irv2caffe.diagnose.finding import MEASURED, POSSIBLE, Finding
from irv2caffe.diagnose.gaps import does_train, last_gap, main_loss
from irv2caffe.diagnose.registry import rule

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings

_SAME_ANSWER_TESTS = 4
_FAR_FROM_GUESSING = 3.0  # points


@rule("class-imbalance", needs=("net", "database"))
def class_imbalance(evidence: RunEvidence) -> Findings:
    """A few classes have most of the training images."""
    found = evidence.found("class-imbalance")
    if found is None or found.severity < Severity.WARNING:
        return
    last = last_gap(evidence)
    yield Finding(
        MEASURED,
        symptom="A few classes have most of the training images.",
        cause=f"{found.why[0].upper()}{found.why[1:]}.",
        evidence=(
            f"In the files: {found.what}.",
            *((last.text(evidence),) if last is not None and last.is_large else ()),
        ),
        cure=(
            "irv2caffe build-net --out net --class-weights balanced",
            "irv2caffe make-lmdb IMAGES OUT --balance",
        ),
        decide=f"{evaluate(evidence, '--on val')}: the recall of each class",
        source=found.source,
        fit=0.2,
    )


@rule("one-answer", needs=("displays", "tests"), settled_by=("database", "model"))
def one_answer(evidence: RunEvidence) -> Findings:
    """Every test has the same error: the net answers one class for all images."""
    errors = {row.top1_error for row in evidence.tests}
    classes = evidence.num_classes
    if len(evidence.tests) < _SAME_ANSWER_TESTS or len(errors) > 1 or not does_train(evidence):
        return
    error, chance = next(iter(errors)) or 0.0, 100 * (1 - 1 / classes) if classes else 100.0
    if not _FAR_FROM_GUESSING < error < chance - _FAR_FROM_GUESSING or "lr" in evidence.anomalies:
        return
    loss = main_loss(evidence, evidence.tests[-1].iteration)
    if loss is not None and loss < _least_loss(error / 100):
        return  # in training it tells classes apart
    yield Finding(
        POSSIBLE,
        symptom=f"All {len(evidence.tests)} tests have the same error, {error:.1f} %.",
        cause="The net answers the same class for every image: the one that most images have, "
        f"{100 - error:.1f} % of the validation set.",
        evidence=(f"{len(evidence.tests)} tests with {error:.2f} % each.",),
        cure=(
            "irv2caffe build-net --out net --class-weights balanced",
            "irv2caffe make-lmdb IMAGES OUT --balance",
            "a lower base_lr, if the net has died",
        ),
        decide=f"{evaluate(evidence, '--on val')}: what the net answers",
        source="arXiv 1710.05381 (Buda et al.)",
        fit=0.5,
    )


def _least_loss(share: float) -> float:
    """The least loss of a net that ignores the image, if all but this share are of one class."""
    return -(1 - share) * math.log(1 - share) - share * math.log(share)
