"""Tests a model: on which images it is good, normalized how, and what goes on within it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.diagnose.measure.activity import activity
from irv2caffe.diagnose.measure.inputs import inputs
from irv2caffe.diagnose.measure.labels import label_match, label_mix
from irv2caffe.diagnose.measure.scores import as_tested, as_trained, reestimated
from irv2caffe.diagnose.measure.subject import open_subject, place_of
from irv2caffe.diagnose.measure.weights import bad_weights
from irv2caffe.diagnose.measured import Measured
from irv2caffe.errors import (
    CaffeNotFoundError,
    InputError,
    Irv2CaffeError,
    MissingExtraError,
    MissingInputError,
    UsageError,
    WeightsError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.measure.request import MeasureRequest
    from irv2caffe.diagnose.measure.subject import Subject
    from irv2caffe.evaluate.run import ProgressBar

_NO_RESULT = (CaffeNotFoundError, MissingExtraError, UsageError)


def measure(request: MeasureRequest, evidence: RunEvidence, progress: ProgressBar) -> Measured:
    """Tests a model.

    Args:
        request: which model, and how.
        evidence: of the run; its solver names the net.
        progress: makes a progress bar of a title.

    Returns:
        The results; what could not be tested is in their notes.

    Raises:
        MissingInputError: there is no such model.
        WeightsError: its weights are not those of the net.
        UsageError: options that do not go together.
        CaffeNotFoundError: no Caffe that could run it.
    """
    try:
        weights = place_of(request, evidence).weights
    except MissingInputError as error:
        if evidence.run_dir is None or Path(request.model).suffix:
            raise
        return Measured(notes=(error.message,))  # a run without a snapshot
    found = _Results({"weights": str(weights)})
    found.attempt("the weights", lambda: {"bad_weights": bad_weights(weights)})
    try:
        subject = open_subject(request, evidence)
    except WeightsError:
        raise
    except InputError as error:  # a detector or a regression, among others
        found.notes.append(f"the net was not run: {error.message}")
        return found.measured()
    found.values["iteration"] = subject.model.iteration
    found.notes.extend(subject.model.notes)
    if found.values.get("bad_weights"):
        found.notes.append("some weights are not finite: the model was not evaluated")
    else:
        _evaluate(subject, progress, found)
    found.attempt("activity", lambda: activity(subject, progress))
    return found.measured()


@dataclass
class _Results:
    """Values of Measured so far, and notes on what could not be done."""

    values: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def attempt(self, what: str, test: Callable[[], dict[str, Any]]) -> None:
        """Adds the results of a test, or the reason why there are none."""
        try:
            self.values |= test()
        except _NO_RESULT:
            raise
        except Irv2CaffeError as error:
            self.notes.append(f"{what}: {error.message}")

    def measured(self) -> Measured:
        """The results."""
        return Measured(**self.values, notes=tuple(dict.fromkeys(self.notes)))


def _evaluate(subject: Subject, progress: ProgressBar, found: _Results) -> None:
    """Everything that compares images, statistics and labels."""
    found.attempt("evaluation", lambda: as_tested(subject, progress, found.notes))
    predictions = found.values.pop("predictions", None)
    found.attempt("order of labels", lambda: label_mix(subject))
    found.attempt("labels", lambda: label_match(subject, predictions))
    found.attempt("inputs", lambda: inputs(subject))
    num_normalized, num_norms = subject.num_normalized
    mix = found.values.get("label_mix")
    is_mixed = bool(num_normalized and mix is not None and mix.is_bad)
    found.attempt(
        "training images as trained", lambda: as_trained(subject, progress, is_mixed=is_mixed)
    )
    if num_normalized and num_normalized == num_norms:
        found.attempt("statistics of training batches", lambda: reestimated(subject, progress))
    elif num_norms:
        found.notes.append("BatchNorm keeps its statistics in training: they were not renewed")
