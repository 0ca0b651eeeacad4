"""The learning rate: too high, or too low."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from irv2caffe.diagnose.course import course_of, fell_back, is_finetuned, told
from irv2caffe.diagnose.cures import start_again
from irv2caffe.diagnose.finding import LIKELY, POSSIBLE, Confidence, Finding
from irv2caffe.diagnose.mixing import mixing_of
from irv2caffe.diagnose.rates import rate_per_image, rates_of, type_of_solver
from irv2caffe.diagnose.registry import rule

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings
    from irv2caffe.diagnose.rates import Rates

_FAR = 2.0  # times the loss of guessing, for good
_RISEN = 2.0  # times the lowest loss so far: a loss that rises before it diverges
_SPIKE, _OVER_GUESS = 2.0, 1.2  # times the loss around it, and that of guessing
_LEAST_SPIKES, _SPIKES_SHARE = 3, 0.01  # of all displays; fewer may be unusual batches
_HARDLY_DECAYED = 0.4  # of the highest rate
_LOW_RATE = 1e-4  # per image, with BatchNorm; the recipes of templates/ have 7e-4 to 1.4e-2
_VERY_LOW_RATE = 1e-5  # per image, any net
_STEEPEST = 0.014  # per image: the paper's rate, momentum 0.9 and 32 per replica
_HIGH_RATE = 5 * _STEEPEST
_LOW_ADAM = 1e-5
_RATE_SOURCE = "sgd_solver.cpp, GetLearningRate; the recipes paper-sgd, lim0606, twtygqyy and seed"


@rule("learning-rate-too-high", needs=("displays",), settled_by=("solver",))
def learning_rate_too_high(evidence: RunEvidence) -> Findings:
    """A loss that diverges, spikes over that of guessing, or falls back to it for good."""
    signs_of = (_diverges, _explodes, _stays_high, _hovers, _spikes, _falls_back)
    sign = next((found for sign_of in signs_of if (found := sign_of(evidence))), None)
    if sign is None:
        return
    rates, clips = rates_of(evidence), evidence.log.clips.iteration if evidence.log else ()
    signs = [sign.text]
    if rates:
        signs.append(rates.course)
    if len(clips):
        signs.append(f"Gradients were clipped {len(clips):,} times.")
    yield Finding(
        sign.confidence,
        sign.symptom,
        "The learning rate is too high for this net: updates overshoot, and grow instead of "
        "shrinking.",
        tuple(signs),
        (
            _cure(evidence, rates),
            *(() if len(clips) else ("clip_gradients: 10 to 80 in the solver, as a safety net",)),
        ),
        decide="a run of a few hundred iterations with the lower rate",
        source="sgd_solver.cpp, ComputeUpdateValue",
        fit=sign.fit,
    )


def _cure(evidence: RunEvidence, rates: Rates | None) -> str:
    """A tenth of the rate, or what is usual if that is lower; for one that rises its schedule."""
    if rates is None:
        return "a tenth of base_lr"
    if rates.rises:
        return "a learning rate that does not rise: gamma below 1 in the solver"
    per_image = rate_per_image(evidence)
    usual = rates.highest * _STEEPEST / per_image if per_image else rates.highest
    return start_again(evidence, base_lr=min(rates.highest / 10, usual))


class _Sign(NamedTuple):
    """What speaks for a rate that is too high."""

    symptom: str
    text: str
    confidence: Confidence
    fit: float


def _diverges(evidence: RunEvidence) -> _Sign | None:
    """A run that diverged after its first display."""
    diverged = evidence.summary.diverged
    pairs = zip(evidence.run.iterations, evidence.run.losses, strict=True)
    before = [loss for at, loss in pairs if diverged is not None and at < diverged]
    if diverged is None or not before:
        return None  # the loss of the first iteration is from before the first update
    where = evidence.at(diverged)
    symptom, rise = f"The run diverges at {where}.", before[-1] / max(min(before), 1e-9)
    if rise > _RISEN:
        text = f"Before {where}, the loss rose from {min(before):.3g} to {before[-1]:.3g}."
        return _Sign(symptom, text, LIKELY, 0.8)
    per_image = rate_per_image(evidence)
    if per_image is not None and per_image > _HIGH_RATE:
        text = _of_image(per_image)
        return _Sign(symptom, text, LIKELY, 0.8)
    text = f"Before {where} the loss is {before[-1]:.3g}; the log shows no rise."
    return _Sign(symptom, text, POSSIBLE, 0.6)


def _explodes(evidence: RunEvidence) -> _Sign | None:
    """A finite loss many times higher than the initial one."""
    found = next((one for one in evidence.summary.anomalies if one.kind == "exploded"), None)
    if found is None or evidence.summary.diverged is not None:
        return None
    symptom = f"The loss explodes at {evidence.at(found.iteration)}."
    return _Sign(symptom, told(evidence, found), LIKELY, 0.7)


def _stays_high(evidence: RunEvidence) -> _Sign | None:
    """A loss that jumps far above that of guessing, and stays there."""
    course = course_of(evidence)
    if course is None or evidence.summary.diverged is not None:
        return None
    late = course.losses[len(course.losses) // 2 :]
    before = course.guess or course.initial
    if min(late) < _FAR * before or course.initial > 0.5 * min(late):
        return None
    what = "guessing has" if course.guess else "it began at"
    text = f"The loss is {course.last:.3g} in the second half of the run; {what} {before:.3g}."
    return _Sign("The loss has risen, and stays far too high.", text, LIKELY, 0.8)


def _hovers(evidence: RunEvidence) -> _Sign | None:
    """A loss that never falls, at a rate beyond all recipes."""
    per_image = rate_per_image(evidence)
    if "stuck" not in evidence.anomalies or per_image is None or per_image <= _HIGH_RATE:
        return None
    return _Sign("The loss does not fall.", _of_image(per_image), POSSIBLE, 0.6)


def _spikes(evidence: RunEvidence) -> _Sign | None:
    """Many spikes over the loss of guessing, after the first tenth."""
    course, mixing = course_of(evidence), mixing_of(evidence)
    if course is None or evidence.summary.diverged is not None:
        return None
    is_mixed = mixing is None or not (mixing.is_periodic or mixing.is_slow)
    if evidence.found("no-shuffle") or not is_mixed:
        return None  # each new class is a spike
    if course.guess is None and course.first < _SPIKE * min(course.losses):
        return None  # nothing says what is high
    iterations = np.asarray(evidence.run.iterations, dtype=np.float64)
    losses = np.asarray(evidence.run.losses, dtype=np.float64)
    usual = np.interp(iterations, course.iterations, course.losses)
    is_spike = (losses > _SPIKE * usual) & (losses > _OVER_GUESS * course.level)
    tops = losses[losses.size // 10 :][is_spike[losses.size // 10 :]]
    if tops.size < max(_LEAST_SPIKES, _SPIKES_SHARE * losses.size):
        return None
    text = (
        f"{tops.size:,} of {losses.size:,} displays show a loss of more than twice that around "
        f"them, up to {tops.max():.3g}; guessing has {course.level:.3g}."
    )
    return _Sign("The loss spikes again and again.", text, LIKELY, 0.7)


def _falls_back(evidence: RunEvidence) -> _Sign | None:
    """A loss that had fallen and is that of guessing again, at a rate that is still high."""
    back, rates, course = fell_back(evidence), rates_of(evidence), course_of(evidence)
    if back is None or course is None:
        return None
    if rates and rates.at(back) < _HARDLY_DECAYED * rates.highest:
        return None
    text = (
        f"The loss had fallen to {min(course.losses):.3g}, and is back at {course.last:.3g} since "
        f"{evidence.at(back)}."
    )
    return _Sign("The loss had fallen, and fell back for good.", text, POSSIBLE, 0.7)


@rule("learning-rate-too-low", needs=("displays",), settled_by=("solver",))
def learning_rate_too_low(evidence: RunEvidence) -> Findings:
    """A loss that is still high and falls as slowly as at first, with a rate below all recipes."""
    course, rates = course_of(evidence), rates_of(evidence)
    if course is None or evidence.summary.diverged is not None or is_finetuned(evidence):
        return
    is_stuck = "stuck" in evidence.anomalies
    if not (course.falls_steadily or is_stuck):
        return
    low = _low_rate(evidence)
    is_done = evidence.log is not None and evidence.log.finished
    if not low and (is_stuck or not is_done):
        return  # the start of a run looks like this as well
    fall = (
        f"The loss is {course.first:.3g} at first, {course.mean(0.45, 0.55):.3g} in the middle "
        f"and {course.last:.3g} at {evidence.at(evidence.num_iterations)}."
    )
    rate = rates.highest if rates else None
    yield Finding(
        LIKELY if low and (course.sinks or not is_stuck) else POSSIBLE,
        "The loss hardly falls." if is_stuck else "The loss falls slowly, and is still falling.",
        "The learning rate is too low: every update moves the weights by too little.",
        (fall, *([low] if low else [])),
        (
            start_again(evidence, base_lr=10 * rate) if rate else "a base_lr of ten times as much",
            "irv2caffe build-net --out net --recipe paper-sgd",
        ),
        against=()
        if low or rate is None
        else (f"A rate of {rate:.3g} is not unusually low; the run may only need more time.",),
        decide="a run of a few hundred iterations with ten times the rate"
        if rates
        else "--solver, for the rate, momentum and batch",
        source=_RATE_SOURCE,
        fit=0.7 if low else 0.4,
    )


def _low_rate(evidence: RunEvidence) -> str:
    """How low the rate is against recipes; empty if it is not, or cannot be compared."""
    per_image, rates = rate_per_image(evidence), rates_of(evidence)
    if rates and type_of_solver(evidence) == "Adam" and rates.highest < _LOW_ADAM:
        return f"The rate of Adam is {rates.highest:.3g}; its default elsewhere is 0.001."
    if per_image is None:
        return ""
    net = evidence.net("TRAIN")
    has_norm = net is not None and any(net.of_type("BatchNorm"))
    if per_image >= (_LOW_RATE if has_norm else _VERY_LOW_RATE):
        return ""
    return _of_image(per_image)


def _of_image(per_image: float) -> str:
    return (
        f"Rate / (1 - momentum) / batch is {per_image:.2g} per image; published runs of "
        "Inception-ResNet-v2 have 0.0007 to 0.014."
    )
