"""Numbers: a loss that is not one, saturated outputs, outputs that do not depend on the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.diagnose.course import course_of, fell_back, told
from irv2caffe.diagnose.cures import diagnose_with_model, start_again
from irv2caffe.diagnose.finding import LIKELY, MEASURED, POSSIBLE, Finding
from irv2caffe.diagnose.registry import rule

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings
    from irv2caffe.log.anomalies import Anomaly

_SETTINGS = ("nothing-learns", "base-lr", "zero-filler", "constant-filler", "scale-filler-zero")
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
        signs.append(f"for training images, {layer} is the first layer whose output is not finite")
        cause = f"The numbers break in {layer}; what comes before it is still finite."
    elif weights:
        names = ", ".join(weights[:3]) + (f" and {len(weights) - 3:,} more" if weights[3:] else "")
        signs.append(f"the weights of {names} are not finite")
        cause = "The weights themselves are not numbers: this snapshot is lost."
    elif from_start:
        cause = "It is there before any update: in the input, the initial weights or the net."
    yield Finding(
        MEASURED if layer or weights else LIKELY,
        f"The loss is not a number since {evidence.at(found.iteration)}",
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
        f"The softmax is saturated since {evidence.at(found.iteration)}",
        "The outputs of the classifier are huge before any update: inputs without mean and scale, "
        "or initial weights that are too large."
        if from_start
        else "The outputs of the classifier have grown beyond measure, or are not numbers, which "
        "a GPU shows as the same value.",
        (
            told(evidence, found),
            "87.3365 is -log of the smallest positive float, to which a probability of 0 is raised",
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
    """A loss that has never fallen: the outputs do not depend on the images, or on nothing else."""
    found, course = _anomaly(evidence, "stuck"), course_of(evidence)
    if found is None or course is None:
        return
    settings = [each for name in _SETTINGS if (each := evidence.found(name))]
    for each in settings:
        yield Finding(
            MEASURED,
            f"The net learns nothing: {found.text}",
            f"{each.what}: {each.why}.",
            tuple(str(place) for place in each.places[:3]),
            (each.fix,),
            source=each.source,
            fit=0.9,
        )
    if settings:
        return
    signs = [told(evidence, found)]
    if evidence.tests and evidence.num_classes:
        chance = 100 * (1 - 1 / evidence.num_classes)
        errors = [row.top1_error or 0.0 for row in evidence.tests]
        signs.append(f"the test error is {errors[-1]:.1f} %; guessing has {chance:.1f} %")
    yield Finding(
        POSSIBLE,
        "The net learns nothing from the start",
        "The outputs are the same for all images (initial weights, dead units, inputs without "
        "contrast), or the labels have nothing to do with the images, or the learning rate is far "
        "too high or too low.",
        tuple(signs),
        (
            "irv2caffe inspect-lmdb TRAIN_LMDB --peek sheet.png",
            "a training on a hundred images: a net that works fits them within minutes",
        ),
        decide=diagnose_with_model(evidence),
        source="softmax_loss_layer.cpp: equal outputs give log(classes)",
        fit=0.6,
    )


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
        f"What had been learned is lost since {evidence.at(back)}",
        "Units have died: an update too large pushed them to where their ReLU is 0 for every "
        "image, and no gradient reaches them any more.",
        (f"the loss had fallen to {min(course.losses):.3g}; it is {course.last:.3g}{level}",),
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
