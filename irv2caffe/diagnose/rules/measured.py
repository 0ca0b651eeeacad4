"""Causes that scores of a model show, or rule out: statistics, overfitting, TRAIN against TEST.

What these rules say replaces what rules on the curves say of the same cause (``settles``).
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from irv2caffe.diagnose.cures import augment, check_files
from irv2caffe.diagnose.finding import LIKELY, MEASURED, POSSIBLE, UNLIKELY, Finding
from irv2caffe.diagnose.measured import SMALL
from irv2caffe.diagnose.norms import cure_of_lag, norms_of
from irv2caffe.diagnose.registry import DOUBT_TESTS, rule

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings
    from irv2caffe.diagnose.measured import Measured, Score

_BATCH_NORM = "batch_norm_layer.cpp; measured with the net of 2016: docs/explanation/batch-norm.md"
_HARDLY, _HALF = 0.25, 0.5  # of the gap
_OTHER_MIX = 0.2  # distance of the shares of classes


def _evaluate(found: Measured, options: str) -> str:
    return f"irv2caffe evaluate {shlex.quote(found.weights)} {options}"


def _renewed(found: Measured) -> str:
    return (
        f"Validation images: wrong are {found.val} as tested, and {found.reestimated} with "
        f"BatchNorm statistics of {found.num_reestimate_batches} training batches."
    )


@rule("tested-batch-statistics", needs=("model",))
def tested_batch_statistics(evidence: RunEvidence) -> Findings:
    """The error of a model depends on the TEST batch, measured with several sizes of it."""
    found = evidence.measured
    if not found.batch_statistics or not found.by_test_batch or found.val is None:
        return
    sizes = ", ".join(f"{size}: {score.top1_error:.1f}" for size, score in found.by_test_batch)
    texts = [f"Error of validation images in percent, by TEST batch: {sizes}."]
    texts += [_renewed(found)] if found.reestimated else []
    is_wrong = found.val.is_worse(found.reestimated, SMALL)
    by_size = sorted((score for _, score in found.by_test_batch), key=lambda one: one.top1_error)
    if not is_wrong and not by_size[-1].is_worse(by_size[0], SMALL):
        yield _ruled_out(
            "The tests normalize each image by the others of its batch.",
            "BatchNorm takes the statistics of the test's own batch.",
            tuple(texts),
            _BATCH_NORM,
            ("batch-statistics-in-test",),
        )
        return
    yield Finding(
        MEASURED if is_wrong else POSSIBLE,
        symptom="The validation figures are those of the TEST batch, not of the net."
        if is_wrong
        else "The validation figures depend on the TEST batch; with that of the run they are "
        "about right.",
        cause="BatchNorm takes the mean and variance of the test's own batch "
        "(use_global_stats: false in TEST): few images give wrong ones.",
        evidence=(*texts, *found.gap),
        cure=(
            "remove use_global_stats: false from the net, or give it to phase TRAIN only",
            _evaluate(found, "--reestimate-bn 200 --model-out REPAIRED.caffemodel"),
        ),
        source=_BATCH_NORM,
        fit=1.0 if is_wrong else 0.4,
        settles=("batch-statistics-in-test", *(DOUBT_TESTS if is_wrong else ())),
    )


@rule("tested-running-statistics", needs=("model",))
def tested_running_statistics(evidence: RunEvidence) -> Findings:
    """Running mean and variance that do not fit the weights, measured against new ones."""
    found = evidence.measured
    if found.batch_statistics or found.reestimated is None or found.val is None:
        return
    settles = ("running-statistics", "trunk-statistics")
    if found.val.is_worse(found.reestimated, SMALL):
        yield Finding(
            MEASURED,
            symptom="The validation figures are those of stale BatchNorm statistics, not of the "
            "weights.",
            cause="The running mean and variance, which only tests use, lag behind the weights or "
            "were caught at a bad moment.",
            evidence=(_renewed(found), *found.gap),
            cure=(
                _evaluate(found, "--reestimate-bn 200 --model-out REPAIRED.caffemodel"),
                cure_of_lag(norms_of(evidence)),
            ),
            source=_BATCH_NORM,
            fit=1.0,
            settles=(*settles, *DOUBT_TESTS),
        )
    elif (closed := _closed(found.val, found.as_trained, found.reestimated)) < _HARDLY and (
        _is_of_the_end(evidence)
    ):
        yield _ruled_out(
            "Running statistics that do not fit the weights.",
            "BatchNorm's running mean and variance lag behind the weights.",
            (f"New statistics close {100 * closed:.0f} % of the gap. {_renewed(found)}",),
            _BATCH_NORM,
            settles,
        )


def _closed(tested: Score | None, trained: Score | None, renewed: Score | None) -> float:
    """The share of the gap from training to tests that new statistics close; 1 without a gap."""
    if tested is None or trained is None or not tested.is_worse(trained):
        return 1.0
    if renewed is None:
        return 0.0
    return (tested.top1_error - renewed.top1_error) / (tested.top1_error - trained.top1_error)


def _is_of_the_end(evidence: RunEvidence) -> bool:
    """Whether the model shows the end of the run, which the curves are judged by."""
    at = evidence.measured.iteration
    return at is None or at >= 0.9 * evidence.num_iterations


def _ruled_out(
    symptom: str, cause: str, against: tuple[str, ...], source: str, settles: tuple[str, ...]
) -> Finding:
    """What the curves may have made suspect, and a test speaks against."""
    return Finding(
        UNLIKELY, symptom, cause, (), (), against=against, source=source, settles=settles
    )


@rule("tested-overfitting", needs=("model",))
def tested_overfitting(evidence: RunEvidence) -> Findings:
    """Training images that the model knows by heart, evaluated exactly as validation images are."""
    found = evidence.measured
    val, train = found.val, found.train
    if val is None or train is None:
        return
    if found.reestimated and found.reestimated_train and val.is_worse(found.reestimated, SMALL):
        val, train = found.reestimated, found.reestimated_train  # without that fault
    text = (
        f"Evaluated in the same way, wrong are {train} training images and {val} validation images."
    )
    if found.labels and (found.labels.distance or 0.0) > _OTHER_MIX:
        if val.class_error is None or train.class_error is None:
            return
        text = (
            "Their classes are not equally frequent; the mean error of the classes is "
            f"{train.class_error:.1f} % for training images and {val.class_error:.1f} % for "
            "validation images, evaluated in the same way."
        )
        val = replace(val, top1_error=val.class_error)
        train = replace(train, top1_error=train.class_error)
    source = "github.com/apache/mxnet pull request 13757"
    if val.is_worse(train) and not found.input_difference and not found.labels_differ:
        yield Finding(
            MEASURED,
            symptom="The net knows its training images, and not the validation images.",
            cause="Overfitting: it has learned what sets the training images apart. (Validation "
            "images that are harder, or partly of another kind, look the same.)",
            evidence=(text,),
            cure=(
                *augment(evidence),
                "weight_decay, dropout, --label-smoothing 0.1; more images; finetune",
            ),
            source=source,
            fit=0.95,
            settles=("overfitting", "unchecked-databases"),
        )
    elif val.top1_error - train.top1_error < SMALL and _is_of_the_end(evidence):
        yield _ruled_out(
            "Overfitting, a common suspicion.",
            "The net would know its training images better than others.",
            (text,),
            source,
            ("overfitting",),
        )


@rule("tested-gap", needs=("model",))
def tested_gap(evidence: RunEvidence) -> Findings:
    """Training images that the model knows in training and not in tests, for no other reason."""
    found = evidence.measured
    is_explained = (
        found.batch_statistics
        or bool(found.val and found.val.is_worse(found.reestimated, SMALL))
        or _closed(found.train, found.as_trained, found.reestimated_train) > _HALF
        or bool(found.input_difference)
        or bool(found.mixed and found.mixed.is_worse(found.as_trained))
    )
    if found.gap and not is_explained:
        yield Finding(
            LIKELY,
            symptom="The net is worse on its training images when they are tested.",
            cause="TRAIN and TEST do not compute the same: compare the layers of both phases, "
            "their BatchNorm and their data layers.",
            evidence=found.gap,
            cure=(check_files(evidence), "irv2caffe summary NET"),
            source="the meaning of a test",
            fit=0.9,
            settles=("first-epoch-gap", "unchecked-databases"),
        )
