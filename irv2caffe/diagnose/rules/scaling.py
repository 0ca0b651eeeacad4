"""Residual scaling: whether its absence explains a run, by the loss and its early signs."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from irv2caffe.diagnose.course import course_of, fell_back, standstill
from irv2caffe.diagnose.cures import SCALE, diagnose_with_model
from irv2caffe.diagnose.finding import LIKELY, POSSIBLE, UNLIKELY, Confidence, Finding
from irv2caffe.diagnose.registry import rule

if TYPE_CHECKING:
    from irv2caffe.check.finding import Finding as CheckFinding
    from irv2caffe.diagnose.course import Course
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings

_HIGH_START = 1.5  # times the loss of guessing
_LEARNED = 0.5  # of the loss of guessing
_SWING = 3.0  # a test loss against the one before it
_EARLY, _FIRST = 1 / 3, 6  # of the run, and tests of a short one
_SCALED = (
    SCALE,
    "or eltwise_param { coeff: 1 coeff: 0.1 } in a net of your own",
)
_PAPER = "arXiv 1602.07261v2, section 3.3"


@rule("residual-scaling", needs=("displays", "net"), settled_by=("model",))
def residual_scaling(evidence: RunEvidence) -> Findings:
    """Wide residual branches without a factor, and whether the loss fits their known failure."""
    unscaled, course = evidence.found("residual-unscaled"), course_of(evidence)
    if unscaled is None or course is None:
        return
    signs = [_written(unscaled)]
    if course.guess and course.initial > _HIGH_START * course.guess:
        signs.append(
            f"The loss began at {course.initial:.3g}, far above guessing ({course.guess:.3g}): the "
            "trunk grows from block to block and makes large outputs."
        )
    if _is_guessing(evidence, course):
        died = fell_back(evidence) is not None
        signs.append(
            f"The loss is {course.last:.3g}, that of guessing: the last layer gives the same for "
            "every image."
        )
        confidence, fit = (LIKELY, 0.8) if died else (POSSIBLE, 0.5)
        yield _finding(evidence, "The net is dead", signs, (), confidence, fit)
    elif evidence.summary.diverged is not None or "exploded" in evidence.anomalies:
        yield _finding(evidence, "The training is unstable", signs, (), POSSIBLE, 0.5)
    elif min(course.losses) < _LEARNED * course.level and _has_trouble(evidence):
        yield _finding(
            evidence, "A common suspicion", signs, tuple(_against(course)), UNLIKELY, 0.5
        )


def _finding(
    evidence: RunEvidence,
    symptom: str,
    signs: list[str],
    against: tuple[str, ...],
    confidence: Confidence,
    fit: float,
) -> Finding:
    return Finding(
        confidence,
        f"{symptom}: residual branches are added without a factor.",
        "Without a factor of 0.1 to 0.3 on the branches, residual nets of more than 1,000 "
        "channels can die: the last layer before the pooling gives only zeros.",
        tuple(signs),
        _SCALED,
        against,
        "" if against else diagnose_with_model(evidence),
        f"{_PAPER}; github.com/twtygqyy/Inception-resnet-v2; lim0606/torch-inception-resnet-v2#5",
        fit,
    )


def _is_guessing(evidence: RunEvidence, course: Course) -> bool:
    """Whether the loss is that of guessing at the end."""
    is_guess = course.guess is not None and abs(course.last - course.guess) < 0.05 * course.guess
    kinds = evidence.anomalies & {"chance", "stuck"}
    return is_guess and (bool(kinds) or fell_back(evidence) is not None)


def _has_trouble(evidence: RunEvidence) -> bool:
    return bool(standstill(evidence) or evidence.anomalies & {"overfit", "rising", "swing"})


def _against(course: Course) -> list[str]:
    dead = f", and a dead last layer would keep it at {course.guess:.3g}" if course.guess else ""
    highest, lowest = max(course.initial, course.losses[0]), min(course.losses)
    other = "A scale of 0.1 with momentum 0.9 did as badly as the net of 2016"
    return [
        f"The training loss fell from {highest:.3g} to {lowest:.3g}{dead}.",
        "twtygqyy trained 40 unscaled blocks in Caffe to 27.1 % top-1 and 9.6 % top-5 error.",
        f"{other} (lim0606/torch-inception-resnet-v2#5).",
    ]


def _written(found: CheckFinding) -> str:
    places = found.places
    first = f"; the first is {places[0]}" if places else ""
    return f"{len(places):,} branches of more than 1,000 channels are added unscaled{first}."


@rule("trunk-statistics", needs=("displays", "tests", "net"), settled_by=("model",))
def trunk_statistics(evidence: RunEvidence) -> Findings:
    """Test losses that jump early, of a trunk without factor or ReLU with running statistics."""
    names = ("residual-not-rectified", "residual-unscaled")
    found = [each for name in names if (each := evidence.found(name))]
    jumps = _early_jumps(evidence)
    if not found or not jumps or _tests_by_batch(evidence):
        return
    yield Finding(
        POSSIBLE,
        "The test loss jumps early in the training, the training loss does not.",
        "A trunk that grows from block to block, without a factor or a ReLU, changes faster than "
        "BatchNorm's running mean and variance follow.",
        (jumps, *(_sentence(each) for each in found)),
        (*_SCALED, "batch_norm_param { moving_average_fraction: 0.95 }"),
        decide=diagnose_with_model(evidence),
        source="measured with the net of 2016 at a quarter of its width on Fashion-MNIST, 1,125 "
        "iterations, one seed: test losses of 41.7, 1.5 and 7.3; with factor and ReLU 0.96 at the "
        "end",
        fit=0.5,
    )


def _sentence(found: CheckFinding) -> str:
    return f"{found.what[0].upper()}{found.what[1:]}: {len(found.places):,} places."


def _early_jumps(evidence: RunEvidence) -> str:
    """How the test loss jumps up in the first part of the run; empty if it does not."""
    end, course = _EARLY * evidence.num_iterations, course_of(evidence)
    tests = evidence.test_losses
    early = [test for place, test in enumerate(tests) if test[0] <= end or place < _FIRST]
    if course is None or len(early) < 3:
        return ""
    for (at, loss), (later, other) in pairwise(early):
        if other > _SWING * loss and other > course.level:
            return (
                f"The test loss is {loss:.3g} at {evidence.at(at)} and {other:.3g} at "
                f"{evidence.at(later)}; up to {max(loss for _, loss in early):.3g} early on."
            )
    first, lowest = early[0][1], min(loss for _, loss in early)
    if math.isfinite(first) and first > 2 * course.level and first > 2 * _SWING * lowest:
        return (
            f"The test loss is {first:.3g} at {evidence.at(early[0][0])}, and {lowest:.3g} later."
        )
    return ""


def _tests_by_batch(evidence: RunEvidence) -> bool:
    """Whether the TEST net takes the statistics of each batch, not the running ones."""
    net = evidence.net("TEST")
    params = [layer.message.batch_norm_param for layer in net.of_type("BatchNorm")] if net else []
    return any(
        param.HasField("use_global_stats") and not param.use_global_stats for param in params
    )
