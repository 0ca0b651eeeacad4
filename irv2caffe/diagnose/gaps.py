"""Gap: how much worse a net is on validation images than on those it trains with."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from irv2caffe.diagnose.imagenet import NUM_CLASSES, Error, error_of_loss
from irv2caffe.log.table import is_nonfinite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.log.metrics import Metric
    from irv2caffe.log.table import TestRow

What = Literal["loss"] | Error

_FIRST_PASS = (0.3, 1.05)  # epochs: the last test of the first pass over the images
_WINDOW = 0.1  # the displays of the last tenth before a test are the training's level there
_MIN_DISPLAYS = 3
_MIN_ACCURACIES = 5
_LARGE_LOSS, _LARGE_LOSS_SHARE = 0.5, 0.25
_LARGE_ERROR, _LARGE_ESTIMATE = 10.0, 12.0  # percent
_LARGE_BOUND = 1.25
_LEARNED = 0.7  # of the loss of guessing
_LITTLE = 0.02  # an accuracy that nets of very many classes pass at once
_LEAST_ACCURACY = 1e-6
_MOST_VALUES = 200  # are enough for a mean
_NO_TRAINING = frozenset({"nan", "pinned", "stuck", "chance", "collapse"})


@dataclass(frozen=True)
class Gap:
    """Training and validation at a test.

    Attributes:
        iteration: of the test.
        what: is compared.
        train: the loss, or the error in percent, on training images as they are trained with.
        val: the same on validation images.
        train_loss: the training loss there, where ``train`` is an error that goes with it.
        is_bound: ``val`` is the least loss that the validation errors allow.
    """

    iteration: int
    what: What
    train: float
    val: float
    train_loss: float | None = None
    is_bound: bool = False

    @property
    def is_large(self) -> bool:
        """Whether the difference is more than noise, and than nets differ by."""
        excess = self.val - self.train
        if self.is_bound:
            return self.val > _LARGE_BOUND * self.train
        if self.what == "loss":
            return excess > max(_LARGE_LOSS, _LARGE_LOSS_SHARE * self.train)
        return excess > (_LARGE_ERROR if self.train_loss is None else _LARGE_ESTIMATE)

    def text(self, evidence: RunEvidence) -> str:
        """The difference in one sentence."""
        at = evidence.at(self.iteration)
        if self.is_bound:
            return (
                f"At {at} the training loss is {self.train:.3g}; with the validation errors there "
                f"the loss on validation images is at least {self.val:.3g} (an image that is "
                "classified wrongly costs at least ln 2, and ln 6 beyond the best five)."
            )
        if self.what == "loss":
            return (
                f"At {at} the loss is {self.train:.3g} on training images and {self.val:.3g} on "
                "validation images."
            )
        if self.train_loss is None:
            return (
                f"At {at} the {self.what} is {self.train:.1f} % on training images and "
                f"{self.val:.1f} % on validation images."
            )
        return (
            f"At {at} the training loss is {self.train_loss:.3g}, which goes with a {self.what} of "
            f"about {self.train:.0f} % on ImageNet; on validation images it is {self.val:.1f} %."
        )


def first_pass(evidence: RunEvidence) -> Gap | None:
    """The gap at the end of the first epoch, whose images the net had not seen before.

    None without such a test, and for a run that started from weights of another one.
    """
    if evidence.log is not None and evidence.log.weights:
        return None
    rows = [row for row in _rows(evidence) if row.epoch is not None]
    least, most = _FIRST_PASS
    fresh = [row for row in rows if least <= (row.epoch or 0.0) <= most]
    return gap_at(evidence, fresh[-1]) if fresh else None


def last_gap(evidence: RunEvidence) -> Gap | None:
    """The gap at the last test."""
    rows = _rows(evidence)
    return gap_at(evidence, rows[-1]) if rows else None


def worst_gap(evidence: RunEvidence) -> Gap | None:
    """The largest of the large gaps of all tests, or of some of very many; None without one."""
    rows = _rows(evidence)
    some = rows[:: len(rows) // _MOST_VALUES + 1]
    gaps = [gap for row in some if (gap := gap_at(evidence, row)) is not None and gap.is_large]
    return max(gaps, key=lambda gap: gap.val - gap.train, default=None)


def does_train(evidence: RunEvidence) -> bool:
    """Whether the training itself goes well: it neither diverged nor stayed where it began."""
    return not evidence.anomalies & _NO_TRAINING


def classes_of(evidence: RunEvidence) -> int | None:
    """Classes of the net; by the accuracy of the test before the training if files do not say."""
    rows = evidence.run.table.test
    first = 1 - (rows[0].top1_error or 0.0) / 100 if rows and rows[0].iteration == 0 else 0.0
    return evidence.num_classes or (round(1 / first) if _LEAST_ACCURACY < first <= 0.5 else None)


def tests_guess(evidence: RunEvidence) -> bool:
    """Whether no test was better than guessing."""
    classes = classes_of(evidence)
    if not classes or classes < 2 or not evidence.tests:
        return False
    best = 1 - min(row.top1_error or 0.0 for row in evidence.tests) / 100
    return best < min(max(2 / classes, _LITTLE), 1 / classes + 0.1)


def at_chance(evidence: RunEvidence) -> bool:
    """Whether no test was better than guessing, and the training is."""
    if not tests_guess(evidence):
        return False
    loss = main_loss(evidence, evidence.tests[-1].iteration)
    return loss is not None and loss < _LEARNED * math.log(classes_of(evidence) or 2)


def _rows(evidence: RunEvidence) -> list[TestRow]:
    """Tests after the start whose values are numbers."""
    return [
        row
        for row in evidence.run.table.test
        if row.iteration > 0
        and all(math.isfinite(value) for value in _values(row))
        and any(True for _ in _values(row))
    ]


def _values(row: TestRow) -> list[float]:
    return [value for value in (row.top1_error, row.top5_error, row.loss) if value is not None]


def _errors(row: TestRow) -> tuple[tuple[Error, float | None], ...]:
    return ("top-1 error", row.top1_error), ("top-5 error", row.top5_error)


def gap_at(evidence: RunEvidence, row: TestRow) -> Gap | None:
    """The gap at a test, by what there is: accuracies of both, losses of both, or one of each."""
    at = row.iteration
    accuracies = _accuracy_gap(evidence, row)
    if accuracies is not None:
        return accuracies
    loss = main_loss(evidence, at)
    if loss is None or not is_classification(evidence) or _weights_classes(evidence):
        return None
    test_loss = _loss_of_test(evidence, row)
    if test_loss is not None:
        return Gap(at, "loss", loss, test_loss)
    if evidence.num_classes == NUM_CLASSES:
        for what, error in _errors(row):
            if error is not None:
                return Gap(at, what, error_of_loss(loss, what), error, loss)
    return Gap(at, "loss", loss, least_loss(row), is_bound=True)


def least_loss(row: TestRow) -> float:
    """The least mean loss on images of which so many are classified wrongly.

    The right class of an image that is classified wrongly has a probability of at most 1/2, and
    of at most 1/6 if it is not among the best five.
    """
    beyond_five = (row.top5_error or 0.0) / 100
    wrong = max((row.top1_error or 0.0) / 100, beyond_five)
    return beyond_five * math.log(6) + (wrong - beyond_five) * math.log(2)


def _weights_classes(evidence: RunEvidence) -> bool:
    """Whether the training loss counts some classes more than others, and the test's does not."""
    blobs = evidence.check.blobs.values() if evidence.check else ()
    return any(blob is not None and blob.weights_classes for blob in blobs)


def _accuracy_gap(evidence: RunEvidence, row: TestRow) -> Gap | None:
    """The gap of the errors, where the training net has an accuracy too."""
    for what, error in _errors(row):
        for metric in evidence.run.metrics:
            is_same = metric.phase == "train" and metric.rank == what[:5] and metric.is_fraction
            if error is None or not is_same:
                continue
            start = (1 - _WINDOW) * row.iteration
            mean = _level(metric.iteration, metric.value, start, row.iteration, _MIN_ACCURACIES)
            if mean is not None:
                train = 100 * (mean if metric.kind == "error" else 1 - mean)
                return Gap(row.iteration, what, train, error)
    return None


def main_loss(evidence: RunEvidence, iteration: float, window: float = math.inf) -> float | None:
    """The training loss before an iteration; of a net with several heads that of the main one.

    Args:
        evidence: of the run.
        iteration: the end of the displays that are averaged.
        window: iterations before it, at most a tenth of them.

    Returns:
        The mean; None without displays there, or if the heads cannot be told apart.
    """
    start = iteration - min(window, _WINDOW * iteration)
    heads = [one for one in evidence.run.metrics if (one.phase, one.kind) == ("train", "loss")]
    weights = [one.weight for one in heads] or list(evidence.run.table.loss_weights.values())
    if len(weights) < 2 and {None, 1.0}.issuperset(weights):
        return _level(evidence.run.iterations, evidence.run.losses, start, iteration)
    tested = _main_test_loss(evidence)
    main = next((one for one in heads if tested and one.name == tested.name), None)
    return _level(main.iteration, main.value, start, iteration) if main else None


def _loss_of_test(evidence: RunEvidence, row: TestRow) -> float | None:
    """The loss of a test; of a net with several heads that of the main one."""
    main = _main_test_loss(evidence)
    return row.outputs.get(main.name, row.loss) if main is not None else row.loss


def _main_test_loss(evidence: RunEvidence) -> Metric | None:
    losses = [one for one in evidence.run.metrics if (one.phase, one.kind) == ("test", "loss")]
    return max(losses, key=lambda one: one.weight or 0.0, default=None)


def _level(
    iterations: Sequence[float],
    values: Sequence[float],
    start: float,
    end: float,
    least: int = _MIN_DISPLAYS,
) -> float | None:
    """The mean of the values between two iterations; of few, an interpolation at the second."""
    first, place = bisect_left(iterations, start), bisect_right(iterations, end)
    first = max(first, place - _MOST_VALUES)
    near = [value for value in values[first:place] if not is_nonfinite(value)]
    if len(near) >= least:
        return math.fsum(near) / len(near)
    if not 0 < place <= len(values) or is_nonfinite(values[place - 1]):
        return None
    before, value = iterations[place - 1], values[place - 1]
    if place == len(values) or is_nonfinite(values[place]):
        return value if end - before <= _WINDOW * end else None
    share = (end - before) / (iterations[place] - before)
    return value + share * (values[place] - value)


def is_classification(evidence: RunEvidence) -> bool:
    """Whether the net is tested by an accuracy."""
    return bool(evidence.tests) or any(
        row.top5_error is not None for row in evidence.run.table.test
    )
