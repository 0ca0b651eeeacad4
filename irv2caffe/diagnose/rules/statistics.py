"""Tests that do not compute what the training computes: BatchNorm's statistics."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from irv2caffe.check.finding import Severity
from irv2caffe.diagnose.cures import diagnose_with_model, evaluate
from irv2caffe.diagnose.finding import LIKELY, POSSIBLE, Finding
from irv2caffe.diagnose.gaps import (
    IMAGENET_SOURCE,
    at_chance,
    does_train,
    first_pass,
    last_gap,
    main_loss,
    worst_gap,
)
from irv2caffe.diagnose.norms import norms_of
from irv2caffe.diagnose.registry import rule
from irv2caffe.diagnose.trust import half_width, is_partial

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings
    from irv2caffe.diagnose.gaps import Gap
    from irv2caffe.diagnose.norms import Norms
    from irv2caffe.log.table import TestRow

_SMALL_TEST_BATCH = 16
# Rules of check that name another reason why tests are bad.
KNOWN_REASONS = ("phases-transform", "phases-labels", "no-shuffle", "label-range")
_OTHER_CLASSES = "class-imbalance"  # validation images are of other classes, more often than not
_WORSE, _WORSE_SHARE = 10.0, 0.25  # percent, and share of the error; a smaller rise may be chance
_CALM = 1.02  # times the training loss before
_UNSTEADY = 0.15  # usual relative change of the training loss from test to test
_BEYOND_GUESSING = 1.5
_LEARNED = 0.7  # of the loss of guessing
_SOURCE = "batch_norm_layer.cpp; github.com/KaimingHe/deep-residual-networks issue 53"


def open_gap(evidence: RunEvidence) -> Gap | None:
    """The gap of the first epoch, if it is large and has not closed since."""
    first, last = first_pass(evidence), last_gap(evidence)
    if first is None or not first.is_large or not does_train(evidence):
        return None
    return None if last is not None and not last.is_large else first


@rule("first-epoch-gap", needs=("displays",), settled_by=("net", "model"))
def first_epoch_gap(evidence: RunEvidence) -> Findings:
    """Validation is far worse than training on images that the net had never seen before."""
    gap = open_gap(evidence)
    reasons = (*KNOWN_REASONS, _OTHER_CLASSES)
    if gap is None or any(map(evidence.found, reasons)) or at_chance(evidence):
        return
    norms = norms_of(evidence)
    is_batch = norms is not None and norms.num_batch > 0
    details = [gap.text(evidence), *_dropout(evidence), *(_flag(norms) if norms else ())]
    against = (
        ("Loss and error go together differently in other nets, by about 10 points.",)
        if gap.train_loss is not None
        else ()
    )
    yield Finding(
        LIKELY,
        symptom="At the end of the first epoch, when no training image had been seen before, "
        "validation is already far worse than training.",
        cause="Memorizing is impossible in the first epoch, so TRAIN and TEST do not evaluate the "
        "same function. "
        + (
            "The tests normalize each image by the other images of its batch: the figures depend "
            "on the TEST batch, and are not those of the net."
            if is_batch
            else "Either BatchNorm's running statistics do not fit the weights, or the images of "
            "both are preprocessed, labelled or mixed of classes differently, or batches of few "
            "classes let the training see the class."
        ),
        evidence=tuple(details),
        against=against,
        cure=(*_cure_of_flag(evidence), evaluate(evidence, "--reestimate-bn 200"))
        if is_batch
        else ("irv2caffe check SOLVER, and inspect-lmdb on both databases",),
        decide=f"{diagnose_with_model(evidence)}; or {evaluate(evidence, '--on train')}: a high "
        "error on training images means that TRAIN and TEST differ, a low one overfitting",
        source=_SOURCE + (f"; {IMAGENET_SOURCE}" if gap.train_loss is not None else ""),
        fit=0.98 if is_batch else 0.95,
    )


def _dropout(evidence: RunEvidence) -> tuple[str, ...]:
    net = evidence.net("TRAIN")
    if net is None or not any(net.of_type("Dropout")):
        return ()
    return ("Dropout makes the training loss higher than the same net has without it.",)


def _flag(norms: Norms) -> tuple[str, ...]:
    """What the files say about statistics of the batch."""
    if not norms.num_batch:
        return ()
    batch = f"; the TEST batch is {norms.test_batch}" if norms.test_batch else ""
    flag = (
        f"use_global_stats: false reaches the TEST phase in {norms.num_batch:,} BatchNorm "
        f"layer(s), first {norms.place}{batch}."
    )
    if not norms.test_bytes:
        return (flag,)
    needs = (
        f"With this TEST batch the test net needs {norms.test_bytes / 2**30:.0f} GiB: on a card "
        "with less memory it was smaller."
    )
    return flag, needs


def _cure_of_flag(evidence: RunEvidence) -> tuple[str, ...]:
    found = evidence.found("bn-batch-stats-in-test")
    assert found is not None
    name = found.places[0].file if found.places and evidence.solver_path else "the net"
    return (f"remove use_global_stats: false from {name}",)


@rule("batch-statistics-in-test", needs=("net",), settled_by=("model",))
def batch_statistics_in_test(evidence: RunEvidence) -> Findings:
    """Tests that normalize each image by the other images of its batch."""
    norms = norms_of(evidence)
    if norms is None or not norms.num_batch or open_gap(evidence) is not None:
        return  # the rule first-epoch-gap says it then
    last = last_gap(evidence)
    is_small = bool(norms.test_batch and norms.test_batch <= _SMALL_TEST_BATCH)
    is_worse = last is not None and last.is_large and does_train(evidence)
    texts = _flag(norms)
    yield Finding(
        LIKELY if is_worse or is_small else POSSIBLE,
        symptom="The validation figures depend on the TEST batch: on its size, and on which "
        "images share it.",
        cause="BatchNorm takes the mean and variance of the test's own batch, so that the figures "
        "are not those of the net; and the test net overwrites the running statistics.",
        evidence=(*texts, last.text(evidence)) if last is not None and is_worse else texts,
        against=(last.text(evidence),) if last is not None and not is_worse else (),
        cure=(*_cure_of_flag(evidence), evaluate(evidence, "--reestimate-bn 200")),
        decide=evaluate(evidence, "--test-batch-sizes 2,10,50"),
        source=_SOURCE,
        fit=0.9 if is_worse else 0.4,
    )


@rule("running-statistics", needs=("displays", "tests"), settled_by=("net", "model"))
def running_statistics(evidence: RunEvidence) -> Findings:
    """Running mean and variance that lag behind the weights, or jump."""
    norms = norms_of(evidence)
    is_other = norms is not None and (not norms.num_layers or norms.num_batch)
    if is_other or not does_train(evidence) or any(map(evidence.found, KNOWN_REASONS)):
        return
    lag, last = evidence.found("bn-fraction"), last_gap(evidence)
    overfits = "overfit" in evidence.anomalies
    is_bad_now = last is not None and last.is_large and not overfits
    wild, worst = _beyond_guessing(evidence), worst_gap(evidence) if lag is not None else None
    jumps = () if is_partial(evidence) else (_rise(evidence), _swing(evidence))
    texts = [text for text in (*jumps, wild) if text]
    if worst is not None and not overfits and not evidence.found(_OTHER_CLASSES):
        texts.append(worst.text(evidence))
        if last is not None and last.iteration != worst.iteration:
            texts.append(last.text(evidence))
    if not texts:
        return
    is_sure = not overfits and (lag is not None or (bool(wild) and norms is not None))
    follows = "lag behind the weights" if lag is not None else "do not fit the weights"
    yield Finding(
        LIKELY if is_sure else POSSIBLE,
        symptom="Validation is far worse than the training suggests."
        if is_bad_now
        else "Validation was at times far worse than the training suggests.",
        cause=f"BatchNorm's running statistics, which only tests use, {follows}: the weights "
        "change faster than the mean over past batches follows.",
        evidence=(*texts, *((f"In the files: {lag.what}.",) if lag else ())),
        against=_others(norms, is_sure=is_sure, overfits=overfits),
        cure=(
            lag.fix if lag else "build-net --bn-fraction 0.95, or a lower base_lr",
            *((evaluate(evidence, "--reestimate-bn 200"),) if is_bad_now else ()),
        ),
        decide=f"{diagnose_with_model(evidence)}: whether re-estimated statistics are better"
        if is_bad_now
        else "",
        source="batch_norm_layer.cpp; measured: docs/explanation/batch-norm.md",
        fit=(0.96 if is_sure else 0.5) if is_bad_now else (0.6 if is_sure else 0.2),
        settles=("first-epoch-gap",) if is_sure and is_bad_now else (),
    )


def _others(norms: Norms | None, *, is_sure: bool, overfits: bool) -> tuple[str, ...]:
    """What else makes the error of tests jump."""
    if is_sure:
        return ()
    texts = ["A learning rate that is too high makes the error jump as well."]
    if overfits:
        texts = ["The net overfits, which alone makes the loss of the tests rise."]
    if norms is None:
        texts.append("Whether the net has BatchNorm at all is not known without its file.")
    return tuple(texts)


def _tests(evidence: RunEvidence) -> list[tuple[TestRow, float]]:
    """The tests with the training loss just before each."""
    places = [0, *(row.iteration for row in evidence.tests)]
    near = max(1.0, median(end - start for start, end in pairwise(places)) / 2)
    found = ((row, main_loss(evidence, row.iteration, near)) for row in evidence.tests)
    return [(row, loss) for row, loss in found if loss is not None]


def _rise(evidence: RunEvidence) -> str:
    """How far the error rose while the training loss fell, where that is more than chance."""
    best: tuple[TestRow, float] | None = None
    worst = (0.0, "")
    for row, loss in _tests(evidence):
        error = row.top1_error or 0.0
        if best is None or error < (best[0].top1_error or 0.0):
            best = (row, loss)
            continue
        before = best[0].top1_error or 0.0
        least = max(_WORSE, _WORSE_SHARE * before, 3 * (half_width(evidence, error) or 0.0))
        if error - before >= max(least, worst[0]) and loss <= _CALM * best[1]:
            text = (
                f"From {evidence.at(best[0].iteration)} to {evidence.at(row.iteration)} the "
                f"validation error rose from {before:.1f} to {error:.1f} %, while the training "
                f"loss went from {best[1]:.2f} to {loss:.2f}."
            )
            worst = (error - before, text)
    return worst[1]


def _beyond_guessing(evidence: RunEvidence) -> str:
    """A test loss above that of guessing, in some tests, while the training has learned."""
    classes = evidence.num_classes
    if not classes or classes < 2:
        return ""
    guess = math.log(classes)
    tests = [(row, loss) for row, loss in _tests(evidence) if row.loss is not None]
    high = [
        (row, loss)
        for row, loss in tests
        if (row.loss or 0.0) > _BEYOND_GUESSING * guess and loss < _LEARNED * guess
    ]
    fine = [row for row, _ in tests if (row.loss or 0.0) < guess]
    if not high or not any(row.iteration > high[0][0].iteration for row in fine):
        return ""  # it only rises, as that of a net that overfits, or was never low
    row, loss = max(high, key=lambda pair: pair[0].loss or 0.0)
    return (
        f"At {evidence.at(row.iteration)} the test loss was {row.loss:.1f}, worse than guessing "
        f"({guess:.2f}), with a training loss of {loss:.2f}; at other tests it was as low as "
        f"{min(one.loss or 0.0 for one in fine):.2f}."
    )


def _swing(evidence: RunEvidence) -> str:
    """The finding of the log about an error that jumps from test to test."""
    found = next((one for one in evidence.summary.anomalies if one.kind == "swing"), None)
    losses = [loss for _, loss in _tests(evidence)]
    if found is None or len(losses) < 2:
        return ""
    changes = [abs(after - before) / max(before, 1e-6) for before, after in pairwise(losses)]
    if median(changes) > _UNSTEADY:
        return ""  # the training jumps too
    return f"Since {evidence.at(found.iteration)}: {found.text}."


@rule("frozen-statistics", needs=("net",))
def frozen_statistics(evidence: RunEvidence) -> Findings:
    """Running mean and variance that are never computed, or trained like weights."""
    kept = evidence.found("bn-global-stats-in-train")
    if kept is not None and kept.severity < Severity.WARNING:
        kept = None  # fine-tuning, with the statistics of its weights
    trained = evidence.found("bn-params-not-frozen")
    if trained is not None and trained.severity < Severity.ERROR:
        trained = None
    found = kept or trained
    has_weights = evidence.log is not None and bool(evidence.log.weights)
    if found is None or (kept is not None and has_weights):
        return
    stays = evidence.anomalies & {"stuck", "chance", "pinned", "nan"}
    yield Finding(
        LIKELY if stays else POSSIBLE,
        symptom="The loss does not fall."
        if stays
        else "BatchNorm does not normalize by the images it is trained with.",
        cause=f"{found.what}: {found.why}.",
        evidence=(f"In the files: {found.what}, first at {found.places[0]}.",),
        cure=(found.fix,),
        source=found.source,
        fit=0.8 if stays else 0.4,
    )
