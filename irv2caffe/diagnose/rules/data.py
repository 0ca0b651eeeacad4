"""The images: their order, preprocessing and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.check.arithmetic import facts_of_net
from irv2caffe.diagnose.cures import diagnose_with_model, evaluate
from irv2caffe.diagnose.finding import LIKELY, MEASURED, POSSIBLE, Finding
from irv2caffe.diagnose.gaps import (
    at_chance,
    does_train,
    last_gap,
    main_loss,
    tests_guess,
)
from irv2caffe.diagnose.mixing import mixing_of
from irv2caffe.diagnose.norms import norms_of
from irv2caffe.diagnose.registry import rule
from irv2caffe.diagnose.rules.statistics import open_gap
from irv2caffe.diagnose.trust import half_width

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings
    from irv2caffe.diagnose.mixing import Mixing

_LEAK = "; BatchNorm's statistics of the batch give the class away, which tests cannot use"
_SHUFFLE = "irv2caffe make-lmdb --shuffle (convert_imageset -shuffle)"


@rule("ordered-database", needs=("net", "database"))
def ordered_database(evidence: RunEvidence) -> Findings:
    """Training images in the order of their classes."""
    found = evidence.found("no-shuffle")
    if found is None:
        return
    mixing, norms = mixing_of(evidence), norms_of(evidence)
    texts = [f"In the files: {found.what}."]
    if mixing is not None and mixing.is_wide:
        texts.append(_variation(mixing))
    if (last := last_gap(evidence)) is not None and last.is_large:
        texts.append(last.text(evidence))
    yield Finding(
        MEASURED,
        symptom="The training images come class by class.",
        cause="Every batch shows one class or a few: the net learns the class of the moment and "
        f"forgets the others{_LEAK if norms is None or norms.num_layers else ''}.",
        evidence=tuple(texts),
        cure=(found.fix,),
        source=found.source,
        fit=0.95,
    )


def _variation(mixing: Mixing) -> str:
    text = (
        f"The training loss varies by {mixing.spread:.2g} around its trend (standard deviation); "
        f"means of {mixing.images:,} images in random order vary by about {mixing.expected:.2g}"
    )
    if mixing.is_periodic:
        text += (
            f", and the same places of an epoch are easy and hard again in the next one "
            f"(correlation {mixing.repeats:.2f} over {mixing.num_epochs} epochs)"
        )
    return f"{text}."


@rule("badly-mixed", needs=("displays",), settled_by=("database", "model"))
def badly_mixed(evidence: RunEvidence) -> Findings:
    """A training loss that varies with the place in the database."""
    mixing = mixing_of(evidence)
    if mixing is None or not mixing.is_wide or evidence.found("no-shuffle"):
        return
    if not (mixing.is_periodic or mixing.is_slow or mixing.is_very_wide):
        return
    net = evidence.net("TRAIN")
    facts = facts_of_net(net, evidence.check) if net is not None and evidence.check else None
    is_shuffled = facts is not None and facts.order == "shuffled"
    against = []
    if is_shuffled:
        against.append("The labels along the database look shuffled.")
    is_repeated = mixing.is_periodic or tests_guess(evidence)
    if not is_repeated:
        against.append("A learning rate that is too high makes the loss swing as well.")
    guessing = "No test was better than guessing, although the loss is low at times."
    yield Finding(
        LIKELY if is_repeated and not is_shuffled else POSSIBLE,
        symptom="The training loss swings far more than batches of random images would make it.",
        cause="The training images are not mixed: neighbours in the database are of the same class "
        "or source, and Caffe never shuffles a database.",
        evidence=(_variation(mixing), *((guessing,) if tests_guess(evidence) else ())),
        against=tuple(against),
        cure=(_SHUFFLE, "shuffle: true in ImageData; train --engine torch --shuffle"),
        decide="irv2caffe inspect-lmdb TRAIN_LMDB says whether its labels are in order",
        source="data_layer.cpp; github.com/BVLC/caffe issues 1445, 2606",
        fit=0.92 if is_repeated else 0.4,
    )


@rule("fixed-order", needs=("net",), settled_by=("database", "model"))
def fixed_order(evidence: RunEvidence) -> Findings:
    """Images in the same order in every epoch, mixed or not, where tests are worse at once."""
    net, gap = evidence.net("TRAIN"), open_gap(evidence)
    if net is None or gap is None or evidence.check is None or not any(net.of_type("Data")):
        return
    facts = facts_of_net(net, evidence.check)
    if facts is not None and facts.order != "unknown":
        return
    yield Finding(
        POSSIBLE,
        symptom="Validation is worse than training from the first epoch on, and the order of the "
        "training database is not known.",
        cause="If the database was built without shuffling, or is badly mixed, a batch shows few "
        "classes and BatchNorm's statistics give them away, which helps only in training; and the "
        "Data layer shows the same batches in every epoch.",
        evidence=(gap.text(evidence),),
        cure=(_SHUFFLE, "train --engine torch --shuffle"),
        decide="irv2caffe inspect-lmdb TRAIN_LMDB says whether its labels are in order",
        source="data_layer.cpp; github.com/BVLC/caffe issue 1445; "
        "github.com/lim0606/caffe-googlenet-bn",
        fit=0.5,
    )


@rule("unchecked-databases", needs=("net",), settled_by=("database", "model"))
def unchecked_databases(evidence: RunEvidence) -> Findings:
    """Databases that may differ in size, colours or labels, where tests are worse at once."""
    gap, test = open_gap(evidence), evidence.net("TEST")
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
        cure=("irv2caffe make-lmdb --labels TRAIN_LMDB for the validation images",),
        decide="irv2caffe check SOLVER --train-lmdb DB --val-lmdb DB; inspect-lmdb draws images of "
        "both",
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
    found, last = evidence.found(name), last_gap(evidence)
    if found is None:
        return
    is_seen = at_chance(evidence) or (last is not None and last.is_large)
    text = (last.text(evidence),) if last is not None else ()
    places = ", ".join(map(str, found.places[:2]))
    yield Finding(
        MEASURED,
        symptom=symptom,
        cause=f"{cause[:-1]}: {found.why}.",
        evidence=(f"In the files: {found.what} ({places}).", *(text * is_seen)),
        against=() if is_seen else text,
        cure=(found.fix,),
        source=found.source,
        fit=0.9 if is_seen else 0.3,
    )


@rule("validation-at-chance", needs=("displays", "tests"), settled_by=("net", "database", "model"))
def validation_at_chance(evidence: RunEvidence) -> Findings:
    """The training loss falls, and no test was ever better than guessing."""
    names = ("phases-transform", "phases-labels", "no-shuffle", "label-range")
    if not at_chance(evidence) or not does_train(evidence) or any(map(evidence.found, names)):
        return
    classes, last = evidence.num_classes or 0, evidence.tests[-1]
    loss = main_loss(evidence, last.iteration)
    errors = [row.top1_error or 0.0 for row in evidence.tests]
    chance = 100 * (1 - 1 / classes)
    width = half_width(evidence, chance)
    is_above = width is not None and min(errors) > chance + width
    errors_text = (
        f"The error of {len(errors)} test(s) lies between {min(errors):.1f} and "
        f"{max(errors):.1f} %; guessing among {classes:,} classes has {chance:.1f} %."
    )
    beyond = (
        "An error above that of guessing means that the net tells the classes apart, and the labels"
        " say otherwise."
    )
    yield Finding(
        LIKELY,
        symptom="The training loss falls, and no test is better than guessing.",
        cause="TEST does not ask what TRAIN teaches: the labels of the validation images mean "
        "other classes, or the images are preprocessed differently; else BatchNorm's running "
        "statistics are useless, or batches of one class gave the class away in training.",
        evidence=(
            errors_text,
            f"At {evidence.at(last.iteration)} the training loss is {loss:.2f}.",
            *((beyond,) if is_above else ()),
        ),
        cure=(
            "irv2caffe make-lmdb --labels TRAIN_LMDB for the validation images",
            "the same transform_param in TRAIN and TEST",
        ),
        decide=f"{diagnose_with_model(evidence)}; or {evaluate(evidence, '--on train')}: a low "
        "error on training images means that the validation images or labels are at fault",
        source="the meaning of a test; github.com/soeaver/caffe-model issue 12",
        fit=0.9,
    )
