"""The solver against its recipe: momentum, batch, weight decay, clipping, adaptive types."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from irv2caffe.check.arithmetic import effective_batch
from irv2caffe.diagnose.course import course_of, standstill, told
from irv2caffe.diagnose.cures import start_again
from irv2caffe.diagnose.finding import LIKELY, POSSIBLE, Finding
from irv2caffe.diagnose.rates import number, rate_per_image, rates_of, type_of_solver
from irv2caffe.diagnose.registry import rule

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings

_LARGE_DELTA = 0.1  # from here on RMSProp divides by nearly the same for all weights
_SMALL_DELTA_RATE = 0.0101  # and Adam's: from here on every weight moves by about this much
_OTHER_BATCH = 1.5
_LARGE_DECAY = 5e-3
_FITTED = 0.5  # of the loss of guessing: a lower one shows that updates are large enough
_CLIPPED = 0.5  # of the updates after the first tenth
_TROUBLE = frozenset(
    {"nan", "pinned", "exploded", "stuck", "chance", "collapse", "swing", "plateau"}
)


@rule("momentum-missing", needs=("displays", "solver"))
def momentum_missing(evidence: RunEvidence) -> Findings:
    """No momentum, where recipes have one, in a run that stands still or learns slowly."""
    kind, momentum = type_of_solver(evidence), number(evidence, "momentum")
    course, symptom = course_of(evidence), standstill(evidence)
    is_rmsprop = kind == "RMSProp" and (number(evidence, "delta") or 0) >= _LARGE_DELTA
    if not symptom or course is None or momentum or not (is_rmsprop or kind in {"SGD", "Nesterov"}):
        return
    per_image = rate_per_image(evidence)
    written = f"{kind} has no momentum in Caffe" if is_rmsprop else f"{kind} with momentum 0"
    signs = [f"{written}: every gradient counts once; with 0.9 it counts ten times."]
    if per_image is not None:
        signs.append(
            f"Rate / (1 - momentum) / batch is {per_image:.2g} per image; 0.014 with TF-slim's "
            "momentum 0.9 and 32 per replica, 0.0036 in twtygqyy's run, 0.0013 in lim0606's."
        )
    against = []
    if course.last < _FITTED * course.level:
        against.append(
            f"The training loss fell to {min(course.losses):.3g} ({course.level:.3g} is guessing): "
            "the steps are large enough to fit the training images."
        )
    if is_rmsprop:
        against.append("twtygqyy trained with RMSProp without momentum to 27.1 % top-1 error.")
    yield Finding(
        POSSIBLE,
        f"The run is slower than its recipe: {symptom}.",
        "The momentum of the recipe is missing: the steps are a tenth of what its learning rate "
        "means. With delta 1 RMSProp is nearly SGD, and SGD has the momentum."
        if is_rmsprop
        else "The momentum of the recipe is missing: the steps are a tenth of what its learning "
        "rate means.",
        tuple(signs),
        (
            "irv2caffe build-net --out net --recipe paper-sgd"
            if is_rmsprop
            else start_again(evidence, momentum=0.9),
        ),
        tuple(against),
        source="rmsprop_solver.cpp; tensorflow/models, slim/train_image_classifier.py",
        fit=0.25 if against else 0.5,
    )


@rule("effective-batch", needs=("displays", "solver"), settled_by=("net",))
def other_batch(evidence: RunEvidence) -> Findings:
    """An effective batch other than the one the solver was written for, or that changes."""
    if not standstill(evidence) and not evidence.anomalies & _TROUBLE:
        return
    now = evidence.effective_batch
    signs = []
    assumed = _assumed_batch(evidence)
    if now and assumed and _differs(now, assumed):
        signs.append(
            f"The solver was written for {assumed:,} images per update, the run had {now:,}: "
            f"an epoch has {assumed / now:.3g} times as many iterations as it assumes."
        )
    pieces = [images for _, images in evidence.run.table.pieces]
    if len(pieces) > 1 and _differs(min(pieces), max(pieces)):
        starts = [evidence.at(start) for start, _ in evidence.run.table.pieces[1:]]
        signs.append(
            f"The batch changed from {pieces[0]:,} to {pieces[-1]:,} images per update "
            f"({', '.join(starts[:3])})."
        )
    if not signs or not now:
        return
    rates, before = rates_of(evidence), assumed if assumed and _differs(now, assumed) else pieces[0]
    rate = rates.highest * now / before if rates else None
    yield Finding(
        POSSIBLE,
        "Batch and learning rate do not belong together.",
        "Rate, stepsize and max_iter are meant for updates of a certain batch; with another one "
        "the rate is too high or too low, and the schedule too fast or too slow.",
        tuple(signs),
        (
            start_again(evidence, base_lr=rate) if rate else "base_lr in proportion to the batch",
            f"stepsize and max_iter times {before / now:.3g}; or iter_size, for the same batch",
        ),
        source="solver.cpp, Step; parallel.cpp; arXiv 1706.02677, section 2.1 (linear scaling)",
        fit=0.6,
    )


def _assumed_batch(evidence: RunEvidence) -> int | None:
    """The effective batch in the header of a solver that build-net wrote."""
    check = evidence.check
    return effective_batch(check) if check is not None and check.claims.num_gpus else None


def _differs(one: int, other: int) -> bool:
    return max(one, other) >= _OTHER_BATCH * min(one, other)


@rule("weight-decay", needs=("displays", "solver"), settled_by=("tests",))
def weight_decay(evidence: RunEvidence) -> Findings:
    """No weight decay in a run that overfits, or one so large that the loss stays high."""
    decay, course = number(evidence, "weight_decay"), course_of(evidence)
    if decay is None or course is None or type_of_solver(evidence) in {"", "Adam", "AdaDelta"}:
        return
    overfit = _overfits(evidence)
    if decay == 0 and overfit:
        yield Finding(
            POSSIBLE,
            "The net fits the training images, not the others.",
            "Weight decay is missing: nothing keeps the weights small. Rarely the only cause.",
            (
                overfit,
                "The solver has weight_decay 0, Caffe's default; TF-slim has 4e-5, twtygqyy 4e-4.",
            ),
            (start_again(evidence, weight_decay=1e-4),),
            source="caffe.proto, SolverParameter; sgd_solver.cpp, Regularize",
            fit=0.4,
        )
    is_high = course.is_flat(0.5) and course.last > _FITTED * course.level
    if decay >= _LARGE_DECAY and (is_high or evidence.anomalies & {"stuck", "chance"}):
        yield Finding(
            LIKELY if decay >= 2 * _LARGE_DECAY else POSSIBLE,
            f"The loss stays at {course.last:.3g} ({course.level:.3g} is guessing).",
            "Weight decay is too large: it pulls the weights to 0 faster than the gradients move "
            "them.",
            (f"The solver has weight_decay {decay:g}; published recipes have 4e-5 to 5e-4.",),
            (start_again(evidence, weight_decay=1e-4),),
            source="sgd_solver.cpp, Regularize",
            fit=0.7,
        )


def _overfits(evidence: RunEvidence) -> str:
    """How the run overfits, by the anomalies of its log; empty if it does not."""
    for one in evidence.summary.anomalies:
        if one.kind == "overfit" or (one.kind == "plateau" and "went on from" in one.text):
            return told(evidence, one)
    return ""


@rule("gradient-clipping", needs=("displays", "solver"))
def clipping_always(evidence: RunEvidence) -> Findings:
    """Gradients that are clipped in most updates, in a run that stands still or learns slowly."""
    clips, symptom = evidence.log.clips if evidence.log else None, standstill(evidence)
    bound, length = number(evidence, "clip_gradients"), evidence.num_iterations
    if not symptom or clips is None or not bound or bound <= 0 or length < 1:
        return
    late = [norm for at, norm in zip(clips.iteration, clips.norm, strict=True) if at >= length / 10]
    first = evidence.run.iterations[0]
    updates = 0.9 * (length - first) if first < length else 0.0
    if not late or not updates or len(late) < _CLIPPED * updates:
        return
    usual, iter_size = median(late), number(evidence, "iter_size") or 1
    share = min(1.0, len(late) / updates)
    text = f"{100 * share:.0f} % of the updates after the first tenth were clipped"
    signs = [f"{text}; the norm was {usual:.3g}, the bound is {bound:g}."]
    if iter_size > 1:
        signs.append(
            f"Caffe clips the sum over iter_size {iter_size:g} before it divides: for one batch "
            f"the bound is {bound / iter_size:.3g}."
        )
    yield Finding(
        LIKELY if usual > 10 * bound else POSSIBLE,
        f"The run is slower than its learning rate: {symptom}.",
        f"The bound is so low that it always acts: the steps are {usual / bound:.3g} times "
        "smaller than base_lr means.",
        tuple(signs),
        (f"clip_gradients: {2 * usual:.2g} in the solver, to cut only exceptions",),
        source="sgd_solver.cpp, ClipGradients",
        fit=0.6,
    )


@rule("adaptive-step", needs=("displays", "solver"))
def adaptive_step(evidence: RunEvidence) -> Findings:
    """RMSProp with a small delta, or Adam, at a rate for gradient descent, in a run in trouble."""
    kind, rate = type_of_solver(evidence), number(evidence, "base_lr")
    delta = number(evidence, "delta")
    if kind not in {"RMSProp", "Adam"} or rate is None or delta is None:
        return
    if rate < _SMALL_DELTA_RATE or (kind == "RMSProp" and delta >= _LARGE_DELTA):
        return
    trouble = [one for one in evidence.summary.anomalies if one.kind in _TROUBLE]
    still = standstill(evidence)
    if not trouble and not still:
        return
    symptom = told(evidence, trouble[0]) if trouble else f"{still[0].upper()}{still[1:]}."
    fix = start_again(evidence, base_lr=0.001)
    yield Finding(
        LIKELY,
        "The steps are too large.",
        f"{kind} divides gradients by their own size plus delta: every weight moves by about "
        "base_lr in every iteration, however small its gradient is. The paper's 0.045 goes with a "
        "delta of 1.",
        (f"The solver is {kind} with delta {delta:g} and base_lr {rate:g}.", symptom),
        ((start_again(evidence, delta=1.0), fix) if kind == "RMSProp" else (fix,)),
        source="rmsprop_solver.cpp and adam_solver.cpp, ComputeUpdateValue; arXiv 1602.07261v2, "
        "section 4",
        fit=0.85,
    )
