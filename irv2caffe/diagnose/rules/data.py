"""The order of the training images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.check.arithmetic import facts_of_net
from irv2caffe.diagnose.cures import (
    SHUFFLE,
    database,
    train_with,
)
from irv2caffe.diagnose.finding import LIKELY, MEASURED, POSSIBLE, Finding
from irv2caffe.diagnose.gaps import (
    last_gap,
    tests_guess,
)
from irv2caffe.diagnose.mixing import mixing_of
from irv2caffe.diagnose.norms import norms_of
from irv2caffe.diagnose.registry import rule
from irv2caffe.diagnose.trust import unexplained_gap

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings
    from irv2caffe.diagnose.mixing import Mixing

_EXPLAINED = (
    *("first-epoch-gap", "running-statistics", "learning-rate-too-high"),
    *("fixed-order", "unchecked-databases"),
)
_LEAK = "; BatchNorm's statistics of the batch give the class away, which tests cannot use"


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
        settles=("learning-rate-too-high",) if evidence.summary.diverged is None else (),
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
        return  # the rule ordered-database says it then
    if evidence.is_shuffled:
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
        cure=(SHUFFLE, train_with(evidence, "--engine torch --shuffle")),
        decide=f"irv2caffe inspect-lmdb {database(evidence, 'TRAIN')}: are its labels in order?",
        source="data_layer.cpp; github.com/BVLC/caffe issues 1445, 2606",
        fit=0.92 if is_repeated else 0.4,
        settles=_EXPLAINED if is_repeated and not is_shuffled else (),
    )


@rule("fixed-order", needs=("net",), settled_by=("database", "model"))
def fixed_order(evidence: RunEvidence) -> Findings:
    """Images in the same order in every epoch, mixed or not, where tests are worse at once."""
    net, gap = evidence.net("TRAIN"), unexplained_gap(evidence)
    if net is None or gap is None or evidence.check is None or not any(net.of_type("Data")):
        return
    if evidence.is_shuffled:
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
        cure=(SHUFFLE, train_with(evidence, "--engine torch --shuffle")),
        decide=f"irv2caffe inspect-lmdb {database(evidence, 'TRAIN')}: are its labels in order?",
        source="data_layer.cpp; github.com/BVLC/caffe issue 1445; "
        "github.com/lim0606/caffe-googlenet-bn",
        fit=0.5,
    )
