"""BatchNorm's running statistics, which only tests use."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from irv2caffe.check.finding import Severity
from irv2caffe.diagnose.course import told
from irv2caffe.diagnose.cures import diagnose_with_model, evaluate
from irv2caffe.diagnose.finding import LIKELY, POSSIBLE, Finding
from irv2caffe.diagnose.gaps import does_train, last_gap, main_loss, tests_guess, worst_gap
from irv2caffe.diagnose.norms import cure_of_lag, norms_of
from irv2caffe.diagnose.registry import rule
from irv2caffe.diagnose.trust import KNOWN_REASONS, OTHER_CLASSES, half_width, is_partial

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings
    from irv2caffe.diagnose.norms import Norms
    from irv2caffe.log.table import TestRow

_WORSE, _WORSE_SHARE = 10.0, 0.25  # percent, and share of the error; a smaller rise may be chance
_CALM = 1.02  # times the training loss before
_UNSTEADY = 0.15  # usual relative change of the training loss from test to test
_BEYOND_GUESSING = 1.5
_LEARNED = 0.7  # of the loss of guessing


@rule("running-statistics", needs=("displays", "tests"), settled_by=("net", "model"))
def running_statistics(evidence: RunEvidence) -> Findings:
    """Running mean and variance that lag behind the weights, or jump."""
    norms = norms_of(evidence)
    is_other = norms is not None and (not norms.num_layers or norms.num_batch)
    if is_other or not does_train(evidence) or any(map(evidence.found, KNOWN_REASONS)):
        return
    lag, last = evidence.found("bn-fraction"), last_gap(evidence)
    if lag is None and tests_guess(evidence):
        return  # rules on labels and on mixing look at such runs
    overfits = "overfit" in evidence.anomalies
    is_bad_now = last is not None and last.is_large and not overfits
    wild, worst = _beyond_guessing(evidence), worst_gap(evidence) if lag is not None else None
    jumps = () if is_partial(evidence) else (_rise(evidence), _swing(evidence))
    texts = [text for text in (*jumps, wild) if text]
    if worst is not None and not overfits and not evidence.found(OTHER_CLASSES):
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
            lag.fix if lag else cure_of_lag(norms),
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
                f"loss went from {best[1]:.3g} to {loss:.3g}."
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
        f"({guess:.2f}), with a training loss of {loss:.3g}; at other tests it was as low as "
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
    return told(evidence, found)


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
