"""Confidence, Finding: what rules yield."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Confidence(IntEnum):
    """How well a cause is supported.

    ``MEASURED``: a test of the model, or the files of the run, show it directly. ``LIKELY``: the
    curves fit it and hardly anything else. ``POSSIBLE``: they fit it, and other causes as well.
    ``UNLIKELY``: a common suspicion that the evidence speaks against.
    """

    UNLIKELY = 0
    POSSIBLE = 1
    LIKELY = 2
    MEASURED = 3

    @property
    def label(self) -> str:
        """The name in lower case."""
        return self.name.lower()


UNLIKELY, POSSIBLE, LIKELY, MEASURED = Confidence


@dataclass(frozen=True)
class Finding:
    """A cause, with what speaks for it and against it.

    Attributes:
        confidence: how well it is supported.
        symptom: what is seen, in one sentence.
        cause: what is behind it, in one or two sentences.
        evidence: what speaks for it, one sentence with numbers each.
        against: what speaks against it, likewise.
        cure: commands or fields to write, one each.
        decide: what would settle it: a file to give, or a command to run; empty if nothing would.
        source: where the fact comes from; a file of Caffe, a paper, a public thread, a measurement.
        fit: from 0 to 1; of two findings of the same confidence the higher one comes first.
        settles: names of rules that look for the same cause with less; their findings are merged
            into this one. One that is UNLIKELY and settles nothing that was found is left out.
        rule: name of the rule; filled in when rules run.
    """

    confidence: Confidence
    symptom: str
    cause: str
    evidence: tuple[str, ...]
    cure: tuple[str, ...]
    against: tuple[str, ...] = ()
    decide: str = ""
    source: str = ""
    fit: float = 0.5
    settles: tuple[str, ...] = ()
    rule: str = field(default="", kw_only=True)

    def as_dict(self) -> dict[str, Any]:
        """The finding for JSON."""
        return {**vars(self), "confidence": self.confidence.label}


if TYPE_CHECKING:
    Findings = Iterator[Finding]
