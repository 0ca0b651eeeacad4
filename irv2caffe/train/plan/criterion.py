"""Criterion: which value of a test makes a snapshot the best one (``--best``)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from irv2caffe.errors import UsageError
from irv2caffe.log.accuracy import better_of, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from irv2caffe.train.plan.job import Job

# Values of --best, and the columns of metrics.jsonl that they stand for.
_COLUMNS = {"top1": "top1_error", "top5": "top5_error", "loss": "loss"}
_DIRECTIONS: dict[str, Literal["up", "down"]] = {"max": "up", "min": "down"}
AUTO, NONE = "auto", "none"


@dataclass(frozen=True)
class Criterion:
    """Which value of a test makes a snapshot the best one.

    Attributes:
        output: an output of the test net; None for an error or the loss.
        column: of ``metrics.jsonl``; None chooses the top-1 error, or the loss without one.
        better: ``up`` or ``down``: higher or lower values are better.
    """

    output: str | None = None
    column: str | None = None
    better: Literal["up", "down"] = "down"

    def value(self, test: Mapping[str, Any]) -> tuple[str, float] | None:
        """Name and value in a test; None if it has no finite one.

        Args:
            test: a row of ``metrics.jsonl``, or the test of a ``best.json``.
        """
        outputs = test.get("outputs")
        if self.output is not None:
            value = outputs.get(self.output) if isinstance(outputs, dict) else None
            return (self.output, float(value)) if _is_finite(value) else None
        columns = ("top1_error", "loss") if self.column is None else (self.column,)
        name = next((name for name in columns if test.get(name) is not None), columns[0])
        value = test.get(name)
        return (name, float(value)) if _is_finite(value) else None

    def is_better(self, value: float, other: float) -> bool:
        """Whether a value is better than another."""
        return value > other if self.better == "up" else value < other


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def parse_criterion(text: str) -> Criterion | None:
    """Reads a value of ``--best``; None for ``none``.

    Raises:
        UsageError: it does not say whether higher or lower values of an output are better.
    """
    if text == NONE:
        return None
    if text == AUTO:
        return Criterion()
    if text in _COLUMNS:
        return Criterion(column=_COLUMNS[text])
    name, colon, direction = text.rpartition(":")
    if colon and name and direction in _DIRECTIONS:
        return Criterion(name, better=_DIRECTIONS[direction])
    better = better_of(text, kind_of(text))
    if better is None:
        raise UsageError(
            f"--best {text}: whether higher or lower values are better is not known",
            f"--best {text}:max or --best {text}:min says it; top1, top5 and loss need neither",
        )
    return Criterion(text, better=better)


def is_criterion(text: str) -> bool:
    """Whether a text is a value of ``--best``."""
    try:
        parse_criterion(text)
    except UsageError:
        return False
    return True


def check_criterion(text: str, job: Job) -> None:
    """Refuses an output that no test net has.

    Raises:
        UsageError: it is not known, or without tests.
    """
    criterion = parse_criterion(text)
    if criterion is None or text == AUTO:
        return
    if not job.solver.test_interval or not job.solver.test_iter:
        raise UsageError(f"--best {text}: this solver has no tests", "set test_interval in it")
    tops = set(_tops(job))
    if criterion.output is not None and tops and criterion.output.partition("[")[0] not in tops:
        raise UsageError(
            f"--best {text}: the test net has no output of this name",
            f"its last layers have {', '.join(list(dict.fromkeys(_tops(job)))[-4:])}",
        )


def _tops(job: Job) -> Iterator[str]:
    for net in job.nets_of("TEST"):
        for layer in net.layer:
            yield from layer.top
