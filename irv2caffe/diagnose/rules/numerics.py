"""Numbers: a loss that is not one, saturated outputs, outputs that do not depend on the images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from irv2caffe.diagnose.course import course_of, fell_back, told
from irv2caffe.diagnose.cures import diagnose_with_model, start_again
from irv2caffe.diagnose.finding import LIKELY, MEASURED, POSSIBLE, Finding
from irv2caffe.diagnose.registry import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.diagnose.course import Course
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings
    from irv2caffe.log.anomalies import Anomaly

_SETTINGS = ("nothing-learns", "base-lr", "zero-filler", "constant-filler", "scale-filler-zero")
_BELOW, _ABOVE = 0.9, 1.3  # times the loss of guessing: outside of it is another matter
_FAR = 3.0  # times the loss of guessing, at first
_DIGITS = 6  # of a loss in the log
_ALL_WRONG = 100.0  # percent
# What is not finite first in a line of debug_info.
_BREAKS = {
    "Forward": "The numbers break in the forward pass of",
    "Backward": "The gradients break in the backward pass of",
    "Update": "The update breaks the weights of",
}
_DEBUG = "debug_info: true and display: 1 in the solver show the values of each layer in the log"


@rule("not-a-number", needs=("displays",), settled_by=("model",))
def not_a_number(evidence: RunEvidence) -> Findings:
    """A loss that is not a number, and the first layer whose output is not one."""
    found = _anomaly(evidence, "nan") or _anomaly(evidence, "perfect")
    if found is None:
        return
    iterations = evidence.run.iterations
    from_start = len(iterations) > 0 and found.iteration <= iterations[0]
    layer, weights = evidence.measured.first_bad_layer, evidence.measured.bad_weights
    signs, cause = [told(evidence, found)], "An output overflowed, or an operation has no result."
    if layer:
        signs.append(f"For training images, {layer} is the first layer whose output is not finite.")
        cause = f"The numbers break in {layer}; what comes before it is still finite."
    elif weights:
        names = ", ".join(weights[:3]) + (f" and {len(weights) - 3:,} more" if weights[3:] else "")
        signs.append(f"The weights of {names} are not finite.")
        cause = "The weights themselves are not numbers: this snapshot is lost."
    elif shown := evidence.first_not_finite:
        signs.append(f"The first line of debug_info that is not finite: {shown.text}")
        cause = f"{_BREAKS[shown.step]} {shown.layer}."
        if shown.has_bad_weights:
            cause = f"An update before that line broke the weights, those of {shown.layer} too."
        else:
            layer = shown.layer
    elif from_start:
        cause = "It is there before any update: in the input, the initial weights or the net."
    yield Finding(
        MEASURED if layer or weights else LIKELY,
        f"The loss is not a number since {evidence.at(found.iteration)}.",
        cause,
        tuple(signs),
        (*_cures_of_nan(from_start=from_start), *(() if layer else (_DEBUG,))),
        decide="" if layer else diagnose_with_model(evidence),
        source="net.cpp, ForwardDebugInfo; caffe train exits 0 after such a run",
        fit=0.95,
    )


def _cures_of_nan(*, from_start: bool) -> tuple[str, ...]:
    if from_start:
        return (
            "irv2caffe inspect-lmdb TRAIN_LMDB",
            "irv2caffe check SOLVER",
        )
    return (
        "go back to a snapshot from before it, with a lower base_lr or with clip_gradients",
        "train --on-divergence rollback does so by itself",
    )


@rule("softmax-saturated", needs=("displays",), settled_by=("model",))
def softmax_saturated(evidence: RunEvidence) -> Findings:
    """A loss of 87.3365: the net gives the right class a probability of 0."""
    found = _anomaly(evidence, "pinned")
    if found is None:
        return
    iterations = evidence.run.iterations
    from_start = len(iterations) > 0 and found.iteration <= iterations[0]
    yield Finding(
        LIKELY,
        f"The softmax is saturated since {evidence.at(found.iteration)}.",
        "The outputs of the classifier are huge before any update: inputs without mean and scale, "
        "or initial weights that are too large."
        if from_start
        else "The outputs of the classifier have grown beyond measure, or are not numbers, which "
        "a GPU shows as the same value.",
        (
            told(evidence, found),
            "A loss of 87.3365 is -log of the smallest float, which stands for a probability of 0.",
        ),
        (
            "transform_param { scale: 0.00784314 mean_value: 127.5 }, BatchNorm, or smaller fillers"
            if from_start
            else "go back to a snapshot from before it, with a lower base_lr or clip_gradients; "
            "train --on-divergence rollback does so by itself",
        ),
        decide=diagnose_with_model(evidence),
        source="softmax_loss_layer.cpp, Forward_cpu, and softmax_loss_layer.cu",
        fit=0.9,
    )


@rule("loss-at-guessing", needs=("displays",), settled_by=("net", "model"))
def loss_at_guessing(evidence: RunEvidence) -> Findings:
    """A loss of guessing from the start: outputs do not depend on images, or labels do not."""
    found, course = _anomaly(evidence, "stuck") or _anomaly(evidence, "chance"), course_of(evidence)
    if found is None or course is None or not _never_learned(course):
        return
    settings = [each for name in _SETTINGS if (each := evidence.found(name))]
    for each in settings:
        yield Finding(
            MEASURED,
            "The net learns nothing.",
            f"In the files: {each.what}; {each.why}.",
            (told(evidence, found), f"Found in {each.places[0]}." if each.places else each.what),
            (each.fix,),
            source=each.source,
            fit=0.9,
        )
    if settings:
        return
    is_constant = _is_constant(evidence, course)
    yield Finding(
        LIKELY if is_constant else POSSIBLE,
        "The net learns nothing from the start.",
        "The outputs are the same for all images: units died at once, by initial weights, inputs "
        "or first updates that are too large."
        if is_constant
        else "The outputs are the same for all images (initial weights, dead units, inputs without "
        "contrast), or the labels have nothing to do with the images, or the learning rate is far "
        "too high or too low.",
        (told(evidence, found), *_signs_of_guessing(evidence, course, is_constant=is_constant)),
        (
            "irv2caffe inspect-lmdb TRAIN_LMDB --peek sheet.png",
            "a training on a hundred images: a net that works fits them within minutes",
        ),
        decide=diagnose_with_model(evidence),
        source="softmax_loss_layer.cpp: equal outputs give log(classes); accuracy_layer.cpp",
        fit=0.8 if is_constant else 0.6,
    )


def _never_learned(course: Course) -> bool:
    """Whether the loss has never been below that of guessing, and is not far above it now."""
    if course.guess is None:
        return course.last < _ABOVE * course.first
    return min(course.losses) > _BELOW * course.guess and course.last < _ABOVE * course.guess


def _is_constant(evidence: RunEvidence, course: Course) -> bool:
    """Whether the loss is exactly that of equal outputs in the second half of the run."""
    if course.guess is None:
        return False
    losses = list(evidence.run.losses)[len(evidence.run.losses) // 2 :]
    rounding = 10.0 ** (math.floor(math.log10(course.guess)) - _DIGITS + 1)
    return all(abs(loss - course.guess) < 1.5 * rounding for loss in losses)


def _signs_of_guessing(
    evidence: RunEvidence, course: Course, *, is_constant: bool
) -> Iterator[str]:
    if is_constant:
        yield f"The loss is {course.last:.6g} in every display: all outputs are equal."
    if course.guess and course.initial > _FAR * course.guess:
        factor = course.initial / course.guess
        yield (
            f"The loss was {course.initial:.3g} at first, {factor:.2g} times that of guessing: "
            "initial weights or inputs are too large."
        )
    if not evidence.tests or not evidence.num_classes:
        return
    chance = 100 * (1 - 1 / evidence.num_classes)
    errors = [row.top1_error or 0.0 for row in evidence.tests]
    if is_constant and min(errors) == _ALL_WRONG:
        yield "The test error is exactly 100 %: Caffe counts equal outputs as wrong."
    else:
        yield f"The test error is {errors[-1]:.1f} %; guessing has {chance:.1f} %."


@rule("loss-collapsed", needs=("displays",), settled_by=("model",))
def loss_collapsed(evidence: RunEvidence) -> Findings:
    """A loss that had fallen, and is that of guessing again for the rest of the run."""
    back, course = fell_back(evidence), course_of(evidence)
    if back is None or course is None:
        return
    guess = course.guess
    is_guess = guess is not None and abs(course.last - guess) < 0.05 * guess
    level = (
        f" now, which is guessing among {evidence.num_classes:,} classes" if is_guess else " now"
    )
    yield Finding(
        POSSIBLE,
        f"What had been learned is lost since {evidence.at(back)}.",
        "Units have died: an update too large pushed them to where their ReLU is 0 for every "
        "image, and no gradient reaches them any more.",
        (f"The loss had fallen to {min(course.losses):.3g}; it is {course.last:.3g}{level}.",),
        (
            "go back to a snapshot from before it, with a lower base_lr or with clip_gradients",
            start_again(evidence, clip_gradients=10.0),
        ),
        decide=diagnose_with_model(evidence),
        source="arXiv 1602.07261v2, section 3.3, for wide residual nets",
        fit=0.75 if is_guess else 0.6,
    )


def _anomaly(evidence: RunEvidence, kind: str) -> Anomaly | None:
    return next((one for one in evidence.summary.anomalies if one.kind == kind), None)
