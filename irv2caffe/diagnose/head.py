"""The head of a diagnosis: how far the run came, how good it was, and what was read of it."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.diagnose.evidence import RunEvidence

_MAX_FILES = 4


def head_rows(evidence: RunEvidence) -> Iterator[tuple[str, str]]:
    """Name and text of each row."""
    yield "length", _length(evidence)
    figures = [*_errors(evidence), *_losses(evidence)]
    if figures:
        yield "figures", "; ".join(figures)
    yield "read", "; ".join(_read(evidence))
    for note in (*evidence.notes, *evidence.measured.notes):
        yield "note", note


def _length(evidence: RunEvidence) -> str:
    summary = evidence.summary
    text = f"{summary.iterations:,} iterations"
    if summary.max_iter is not None and summary.iterations < summary.max_iter:
        text = f"{summary.iterations:,} of {summary.max_iter:,} iterations"
    if summary.images_per_iteration:
        text += f" of {summary.images_per_iteration:,} images"
    if summary.epochs is not None:
        return f"{summary.epochs:.3g} epochs: {text}"
    return f"{text}; epochs are not known: --num-train-images N"


def _errors(evidence: RunEvidence) -> Iterator[str]:
    summary = evidence.summary
    if summary.best_top1_error is not None and summary.last_top1_error is not None:
        at = "" if summary.best_iteration is None else f" at {evidence.at(summary.best_iteration)}"
        last = summary.last_top1_error
        end = f"{last:.1f} %" if math.isfinite(last) else "no number"
        yield f"top-1 error {summary.best_top1_error:.1f} %{at}, {end} at the end"


def _losses(evidence: RunEvidence) -> Iterator[str]:
    if evidence.summary.last_loss is not None:
        yield f"training loss {evidence.summary.last_loss:.3g} at the end"
    if evidence.test_losses:
        yield f"test loss {evidence.test_losses[-1][1]:.3g}"


def _read(evidence: RunEvidence) -> Iterator[str]:
    """What was read, and what is not known."""
    table = evidence.run.table
    num_losses = _number(len(table.train), "loss", "losses")
    yield f"{num_losses}, {_number(len(table.test), 'test', 'tests')}"
    check = evidence.check
    files = [] if check is None else [_shorter(file.name) for file in check.prototxts]
    yield ", ".join(files[:_MAX_FILES]) if files else "no solver and no net"
    databases = [] if check is None else list(check.databases)
    if databases:
        yield ", ".join(databases[:_MAX_FILES])
    if evidence.measured.weights:
        yield f"tests of {evidence.measured.weights}"


def _number(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _shorter(path: str) -> str:
    """A path relative to the working folder, if that is not longer."""
    return min(os.path.relpath(path), path, key=len)
