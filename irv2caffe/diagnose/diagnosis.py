"""Diagnosis: the findings of a run, and what is missing to know more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import irv2caffe.diagnose.rules  # noqa: F401  registers the rules
from irv2caffe.diagnose.registry import RULES, available, run_rules

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Finding
    from irv2caffe.diagnose.measured import Measured


@dataclass(frozen=True)
class Diagnosis:
    """Findings of a run.

    Attributes:
        name: of the run.
        findings: the best supported first.
        missing: one line for each thing that would tell more: what it is, and which causes.
        measured: tests of the model.
    """

    name: str
    findings: tuple[Finding, ...]
    missing: tuple[str, ...]
    measured: Measured

    def as_dict(self) -> dict[str, Any]:
        """The diagnosis for JSON."""
        return {
            "run": self.name,
            "findings": [finding.as_dict() for finding in self.findings],
            "missing": list(self.missing),
            "measured": self.measured.as_dict(),
        }


def diagnose(evidence: RunEvidence) -> Diagnosis:
    """Runs all rules on a run."""
    return Diagnosis(
        evidence.name,
        tuple(run_rules(evidence, RULES.values())),
        tuple(_missing(evidence)),
        evidence.measured,
    )


def _missing(evidence: RunEvidence) -> list[str]:
    """What is not there, with the rules that it would serve."""
    has = available(evidence)
    wanted: dict[str, list[str]] = {}
    for each in RULES.values():
        for need in (*each.needs, *each.settled_by):
            if need not in has:
                wanted.setdefault(need, []).append(each.name)
    return [f"{need}: {', '.join(names)}" for need, names in wanted.items()]
