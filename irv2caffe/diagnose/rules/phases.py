"""Images and labels that differ between training and tests."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

from irv2caffe.diagnose.cures import (
    SHUFFLE,
    check_files,
    diagnose_with_model,
    evaluate,
    relabel,
)
from irv2caffe.diagnose.finding import LIKELY, MEASURED, POSSIBLE, Finding
from irv2caffe.diagnose.gaps import at_chance, classes_of, does_train, last_gap, main_loss
from irv2caffe.diagnose.registry import rule
from irv2caffe.diagnose.trust import KNOWN_REASONS, OTHER_CLASSES, half_width, unexplained_gap

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings

_SAME_TRANSFORM = "the same transform_param in TRAIN and TEST, but for mirror"
_MIN_TESTS = 2
_KNOWN, _IN_A_ROW = 0.1, 5  # of the loss of guessing; displays
_FEW_OF_A_CLASS, _FEW_ITERATIONS = 30, 100


@rule("unchecked-databases", needs=("net",), settled_by=("database", "model"))
def unchecked_databases(evidence: RunEvidence) -> Findings:
    """Databases that may differ in size, colours or labels, where tests are worse at once."""
    gap, test = unexplained_gap(evidence), evidence.net("TEST")
    if gap is None or test is None or evidence.check is None or evidence.check.databases:
        return
    yield Finding(
        POSSIBLE,
        symptom="Validation is worse than training from the first epoch on, and the databases are "
        "not at hand.",
        cause="A part of the validation images may have been resized, converted or labelled "
        "differently than the training images.",
        evidence=(gap.text(evidence),),
        against=("The nets subtract the same mean and apply the same scale in both phases.",),
        cure=(relabel(evidence),),
        decide=f"{check_files(evidence)}; inspect-lmdb draws images of both",
        source="github.com/soeaver/caffe-model issue 12; github.com/cvjena/cnn-models issue 12",
        fit=0.4,
    )


@rule("preprocessing-differs", needs=("net",))
def preprocessing_differs(evidence: RunEvidence) -> Findings:
    """Tests feed the net with other values than the training does."""
    yield from _differs(
        evidence,
        "phases-transform",
        symptom="The net is tested on differently scaled inputs than it is trained on.",
        cause="TRAIN and TEST preprocess their images differently.",
    )
    records, gap = evidence.found("phases-records"), unexplained_gap(evidence)
    if records is not None and gap is not None:
        yield Finding(
            POSSIBLE,
            symptom="Validation is worse than training from the first epoch on, and its images are "
            "stored in another size.",
            cause=f"TRAIN and TEST do not show the same part of an image: {records.why}.",
            evidence=(f"In the files: {records.what}.", gap.text(evidence)),
            cure=(records.fix,),
            source=records.source,
            fit=0.5,
        )


@rule("tests-on-training-images", needs=("net",))
def tests_on_training_images(evidence: RunEvidence) -> Findings:
    """Tests that read the images that are trained with."""
    found = evidence.found("same-source")
    if found is None:
        return
    yield Finding(
        MEASURED,
        symptom="The tests do not show how good the net is on images that it does not know.",
        cause=f"{found.why[0].upper()}{found.why[1:]}.",
        evidence=(f"In the files: {found.what}.",),
        cure=(found.fix,),
        source=found.source,
        fit=0.5,
    )


@rule("labels-differ", needs=("net", "database"))
def labels_differ(evidence: RunEvidence) -> Findings:
    """Labels that are other classes in validation than in training."""
    for name in ("phases-labels", "label-range"):
        yield from _differs(
            evidence,
            name,
            symptom="The labels do not fit the classes of the net, or those of training and "
            "validation do not mean the same.",
            cause="Labels differ.",
        )


def _differs(evidence: RunEvidence, name: str, *, symptom: str, cause: str) -> Findings:
    """A difference between the phases that the files show, with what the curves say of it."""
    found, last = [one for one in evidence.check_findings if one.rule == name], last_gap(evidence)
    if not found:
        return
    is_seen = at_chance(evidence) or (last is not None and last.is_large)
    text = (last.text(evidence),) if last is not None else ()
    texts = [f"In the files: {one.what} ({', '.join(map(str, one.places[:2]))})." for one in found]
    is_all = name == "phases-transform" and len(found) > 1
    fixes = (_SAME_TRANSFORM,) if is_all else tuple(dict.fromkeys(one.fix for one in found))
    yield Finding(
        MEASURED,
        symptom=symptom,
        cause=f"{cause[:-1]}: {found[0].why}.",
        evidence=(*texts, *(text if is_seen else ())),
        against=() if is_seen else text,
        cure=fixes,
        source=found[0].source,
        fit=0.9 if is_seen else 0.3,
    )


def _learned_at_once(evidence: RunEvidence, classes: int) -> str:
    """A training loss near 0 after far too few images of each class to learn them."""
    batch, limit = evidence.effective_batch, _KNOWN * math.log(classes)
    most = _FEW_OF_A_CLASS * classes / batch if batch else _FEW_ITERATIONS
    losses, end = evidence.run.losses, bisect_right(evidence.run.iterations, most)
    for place in range(end):
        if sum(losses[place : place + _IN_A_ROW]) < _IN_A_ROW * limit:
            at = evidence.run.iterations[place]
            return (
                f"The training loss is {losses[place]:.2g} already at iteration {at:,.0f}, when "
                "the net has seen too few images to know the classes."
            )
    return ""


@rule("validation-at-chance", needs=("displays", "tests"), settled_by=("net", "database", "model"))
def validation_at_chance(evidence: RunEvidence) -> Findings:
    """The training loss falls, and no test was ever better than guessing."""
    is_known = any(map(evidence.found, (*KNOWN_REASONS, OTHER_CLASSES)))
    if is_known or len(evidence.tests) < _MIN_TESTS:
        return
    if not at_chance(evidence) or not does_train(evidence):
        return
    classes, last = classes_of(evidence) or 2, evidence.tests[-1]
    loss = main_loss(evidence, last.iteration)
    errors = [row.top1_error or 0.0 for row in evidence.tests]
    chance = 100 * (1 - 1 / classes)
    early = _learned_at_once(evidence, classes)
    width = half_width(evidence, chance)
    is_above = width is not None and min(errors) > chance + width
    guessing = (
        f"guessing among {evidence.num_classes:,} classes has"
        if evidence.num_classes
        else ("the test before the training had")
    )
    errors_text = (
        f"The error of {len(errors)} tests lies between {min(errors):.1f} and "
        f"{max(errors):.1f} %; {guessing} {chance:.1f} %."
    )
    beyond = (
        "An error above that of guessing means that the net tells the classes apart, and the labels"
        " say otherwise."
    )
    yield Finding(
        LIKELY,
        symptom="The training loss falls, and no test is better than guessing.",
        cause="The training images come class by class, so that the net only learns the class of "
        "the moment; else the labels are all the same."
        if early
        else "TEST does not ask what TRAIN teaches: the labels of the validation images mean other "
        "classes, or the images are preprocessed differently; else BatchNorm's running statistics "
        "are useless, or batches of one class gave the class away in training.",
        evidence=(
            errors_text,
            f"At {evidence.at(last.iteration)} the training loss is {loss:.3g}.",
            *((beyond,) if is_above else ()),
            *((early,) if early else ()),
        ),
        cure=(SHUFFLE,) if early else (relabel(evidence), _SAME_TRANSFORM),
        decide=f"{diagnose_with_model(evidence)}; or {evaluate(evidence, '--on train')}: a low "
        "error on training images means that the validation images or labels are at fault",
        source="the meaning of a test; github.com/soeaver/caffe-model issue 12",
        fit=0.9,
    )
