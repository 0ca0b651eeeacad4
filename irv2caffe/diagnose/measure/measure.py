"""Tests a model: on which images it is good, normalized how, and what goes on within it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.diagnose.measured import Measured

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.measure.request import MeasureRequest
    from irv2caffe.evaluate.run import ProgressBar


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
        UsageError: options that do not go together.
        CaffeNotFoundError: no Caffe that could run it.
    """
    del evidence, progress
    return Measured(notes=(f"{request.model}: models are not tested yet",))
