"""The schedule: a learning rate lowered too fast or not at all, a run that ends too early."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from irv2caffe.check.arithmetic import learning_rate
from irv2caffe.diagnose.course import course_of, is_finetuned, told
from irv2caffe.diagnose.cures import go_on, start_again
from irv2caffe.diagnose.finding import LIKELY, POSSIBLE, Finding
from irv2caffe.diagnose.rates import number, rates_of
from irv2caffe.diagnose.registry import rule

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings
    from irv2caffe.diagnose.rates import Rates

_HARDLY_DECAYED = 0.4  # of the highest rate
_VANISHED = 0.01  # of the highest rate
_FITTED = 0.01  # of the loss of guessing: there is nothing left to fit
_LEARNED = 0.9  # of the loss of guessing; a net that has not learned has another cause
_HIGH = 0.2  # of the loss of guessing: a lower one is that of a net that has learned
_EARLY = 0.4  # of the run; later, the usual schedules have come to their last step
_STILL_FALLING = 0.03  # relative, from the first half of a time to the second
_LEAST = 3  # displays of a median
_FUTURE = 200  # places of the rest of a run at which the rate is computed
_FLAT = 0.03  # relative fall from one half of a time to the other; a plateau has less


@rule("learning-rate-decayed-too-fast", needs=("displays",), settled_by=("solver",))
def learning_rate_decayed_too_fast(evidence: RunEvidence) -> Findings:
    """A rate that fell below a hundredth while the loss was still falling, and stopped it."""
    course, rates = course_of(evidence), rates_of(evidence)
    if course is None or rates is None or evidence.summary.diverged is not None:
        return
    tiny = rates.first_below(_VANISHED)
    if tiny is None or is_finetuned(evidence):
        return
    share = course.share(tiny)
    if share > _EARLY or not course.is_flat(max(share, 0.02)) or course.last < _HIGH * course.level:
        return
    pace = [_median(evidence, *part) for part in ((0.0, tiny / 2), (tiny / 2, tiny))]
    if None in pace or not (fell := 1 - (pace[1] or 0.0) / (pace[0] or 1.0)) > _STILL_FALLING:
        return
    if fell < 3 * abs(course.fall(share)):
        return
    at, left = evidence.at(tiny), 100 * rates.steps_after(tiny)
    rate = (
        f"The rate fell from {rates.highest:.3g} to a hundredth of it by {at}, and to "
        f"{rates.last:.3g} at the end."
    )
    loss = (
        f"Up to there the loss was falling, by {100 * fell:.0f} % from the first half of the time "
        f"to the second; since then it is flat at {course.last:.3g} (first {course.initial:.3g})."
    )
    rest = (
        f"The last {100 - 100 * share:.0f} % of the run hold {left:.2g} % of the sum of all rates."
    )
    yield Finding(
        LIKELY,
        f"The loss comes to rest at {at}, as the learning rate does.",
        "The learning rate was lowered too fast: it became tiny while the net was still learning.",
        (rate, loss, rest),
        (_slower(evidence, 1 / share),),
        source="sgd_solver.cpp, GetLearningRate",
        fit=0.8,
    )


def _median(evidence: RunEvidence, start: float, end: float) -> float | None:
    """The median of the losses between two iterations; None with fewer than three."""
    pairs = zip(evidence.run.iterations, evidence.run.losses, strict=True)
    inside = [loss for at, loss in pairs if start <= at < end]
    return median(inside) if len(inside) >= _LEAST else None


def _slower(evidence: RunEvidence, factor: float) -> str:
    """How to lower the rate so many times more slowly."""
    stepsize, policy = number(evidence, "stepsize"), evidence.solver_value("lr_policy")
    if policy != "step" or not stepsize or stepsize < 1:
        return f"lower the rate {factor:.2g} times more slowly"
    epochs = evidence.run.table.epoch(round(stepsize * factor))
    if epochs is None or evidence.run_dir is None:
        return f"stepsize: {round(stepsize * factor)} in the solver"
    return start_again(evidence, lr_decay_epochs=epochs)


@rule("learning-rate-not-lowered", needs=("displays",), settled_by=("solver", "tests"))
def learning_rate_not_lowered(evidence: RunEvidence) -> Findings:
    """A plateau at a learning rate that has hardly been lowered."""
    course, rates = course_of(evidence), rates_of(evidence)
    if course is None or rates is None or evidence.summary.diverged is not None:
        return
    if rates.last < _HARDLY_DECAYED * rates.highest:
        return
    plateau = next((one for one in evidence.summary.anomalies if one.kind == "plateau"), None)
    is_flat = course.is_flat(0.5)
    if plateau is None and (evidence.tests or not is_flat):
        return
    if not _FITTED * course.level < course.last < _LEARNED * course.level:
        return
    since = plateau.iteration if plateau else evidence.num_iterations // 2
    share = course.share(since)
    falls = course.fall(share) > _FLAT
    level = f"The training loss is flat at {course.last:.3g}."
    against = (
        f"The training loss went on falling, from {course.mean(share - 0.05, share + 0.05):.3g} to "
        f"{course.last:.3g}: the optimizer does not stand still, the net generalizes no further."
    )
    planned = _planned(evidence, rates)
    yield Finding(
        LIKELY if plateau and course.is_flat(share) and not planned else POSSIBLE,
        f"The {'error' if plateau else 'loss'} stands still since {evidence.at(since)}.",
        "The learning rate has hardly been lowered: steps are too large to settle any deeper.",
        (told(evidence, plateau) if plateau else level, rates.kept),
        (go_on(evidence, base_lr=_written_rate(evidence, rates) / 10),),
        against=(*((against,) if falls else ()), *((planned,) if planned else ())),
        decide="an epoch with a tenth of the rate: the error falls at once if this is the cause",
        source="arXiv 1512.03385, section 4.2: the rate is divided by 10 when the error plateaus",
        fit=0.15 if falls else 0.6,
    )


def _planned(evidence: RunEvidence, rates: Rates) -> str:
    """How the solver lowers the rate in the part of the run to come; empty if it does not."""
    solver, now = evidence.solver_file, evidence.num_iterations
    if solver is None or evidence.log is None or evidence.log.finished or solver.max_iter <= now:
        return ""
    for at in np.linspace(now, solver.max_iter, _FUTURE).astype(int).tolist():
        rate = learning_rate(solver, at)
        if 0 < rate < _HARDLY_DECAYED * rates.last:
            return (
                f"The run is not over: its solver lowers the rate by itself, to {rate:.3g} at "
                f"{evidence.at(at)}."
            )
    return ""


def _written_rate(evidence: RunEvidence, rates: Rates) -> float:
    """The base_lr of the solver; a display shows it times the policy's factor."""
    written = evidence.solver_value("base_lr")
    return float(written) if isinstance(written, int | float) and written > 0 else rates.highest


@rule("stopped-too-early", needs=("displays", "tests"), settled_by=("solver",))
def stopped_too_early(evidence: RunEvidence) -> Findings:
    """A run that reached its end while the error was still falling, at a high learning rate."""
    course, rates, tests = course_of(evidence), rates_of(evidence), evidence.tests
    is_done = bool(evidence.log and evidence.log.finished)
    if course is None or rates is None or not is_done or len(tests) < 8:
        return
    errors = [row.top1_error or 0.0 for row in tests]
    quarter = len(errors) // 4
    before, last = min(errors[:-quarter]), median(errors[-quarter:])
    gain = 1 - min(errors[-quarter:]) / before if before > 0 else 0.0
    if gain < 0.1 or last > before or rates.last < _HARDLY_DECAYED * rates.highest:
        return
    if course.fall(0.75) < 0.03 or min(errors) < 1:
        return
    gained = (
        f"The error fell from {before:.1f} to {min(errors[-quarter:]):.1f} % in the last quarter "
        "of the run, and the training loss as well."
    )
    epochs, end = evidence.summary.epochs, evidence.num_iterations
    yield Finding(
        POSSIBLE,
        f"The run ended, at {evidence.at(end)}, while it was still improving.",
        "The solver's max_iter is too small: the run was over before it had learned what it can.",
        (gained, rates.kept),
        (
            go_on(evidence, epochs=2 * epochs)
            if epochs and evidence.run_dir
            else f"max_iter: {2 * end} in the solver",
        ),
        source="solver.cpp, Solve",
        fit=0.6,
    )
