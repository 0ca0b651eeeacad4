"""How fast the images come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.diagnose.finding import LIKELY, Finding
from irv2caffe.diagnose.registry import rule

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings

_EVERY = 1000  # Caffe prints the first wait and every 1,000th
_NETS = 2  # for training and for tests, of which each may print its first wait
_WAITED = 0.2  # of the time, or of the batches


@rule("input-bottleneck", needs=("displays",))
def input_bottleneck(evidence: RunEvidence) -> Findings:
    """The training waits for images: it is slower than it could be, not worse."""
    text = _waited(evidence)
    if not text:
        return
    yield Finding(
        LIKELY,
        symptom="The training often waits for its images.",
        cause="Reading or decoding them takes longer than computing: that costs time, and no "
        "accuracy.",
        evidence=(text,),
        cure=(
            "raw records (make-lmdb --encoded none) that fit the memory, or a faster disk",
            "with the torch engine: more --data-threads",
        ),
        decide="nvidia-smi shows whether the GPU idles",
        source="blocking_queue.cpp; data_layer.cpp",
        fit=0.05,
    )


def _waited(evidence: RunEvidence) -> str:
    """How often or how long the training waited, where that is much."""
    log, hours = evidence.log, evidence.summary.hours
    if log is None:
        return ""
    if log.waited_s and hours and log.waited_s >= _WAITED * 3600 * hours:
        share = min(100.0, log.waited_s / (36 * hours))
        waited = f"{log.waited_s:,.0f} s, {share:.0f} % of the time"
        return f"The engine waited for batches for {waited}."
    iter_size = evidence.solver_value("iter_size")
    tests = len(evidence.run.table.test) * _test_iter(evidence)
    batches = evidence.num_iterations * (iter_size if isinstance(iter_size, int) else 1)
    batches = batches * log.num_gpus + tests
    first_lines = _NETS * max(1, len(log.processes))
    waits = _EVERY * (log.num_waits - first_lines)
    if waits <= 0 or waits < _WAITED * batches:
        return ""
    return (
        f"Caffe says {log.num_waits:,} times that it waits for data, which it prints for every "
        f"{_EVERY:,}th wait: {waits:,} waits for {batches:,} batches."
    )


def _test_iter(evidence: RunEvidence) -> int:
    value = evidence.solver_value("test_iter")
    values = [value] if isinstance(value, int) else list(value or ())
    return values[0] if values and isinstance(values[0], int) else 0
