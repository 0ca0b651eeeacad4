"""Diagnosis: the findings of a run, and what is missing to know more."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import irv2caffe.diagnose.rules  # noqa: F401  registers the rules
from irv2caffe.diagnose.head import head_rows
from irv2caffe.diagnose.missing import find_missing
from irv2caffe.diagnose.registry import RULES, run_rules
from irv2caffe.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Confidence, Finding
    from irv2caffe.diagnose.measured import Measured
    from irv2caffe.diagnose.missing import Missing
    from irv2caffe.log.summary import Summary

_RUN = re.compile(r"(\bdiagnose )?\bRUN\b")


@dataclass(frozen=True)
class Diagnosis:
    """Findings of a run.

    Attributes:
        name: of the run.
        summary: the main numbers of its curves.
        head: name and text of what was read, for people.
        findings: the best supported first.
        missing: each thing that would tell more.
        measured: tests of the model.
        notes: what was supposed, or could not be read.
    """

    name: str
    summary: Summary
    head: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    missing: tuple[Missing, ...]
    measured: Measured
    notes: tuple[str, ...] = ()

    @property
    def highest(self) -> Confidence | None:
        """The highest confidence; None without findings."""
        return max((finding.confidence for finding in self.findings), default=None)

    def as_dict(self) -> dict[str, Any]:
        """The diagnosis for JSON."""
        return {
            "run": self.name,
            "summary": self.summary.as_dict(),
            "notes": list(self.notes),
            "findings": [finding.as_dict() for finding in self.findings],
            "missing": [one.as_dict() for one in self.missing],
            "measured": self.measured.as_dict(),
        }


def diagnose(evidence: RunEvidence, ignore: frozenset[str] = frozenset()) -> Diagnosis:
    """Runs the rules on a run.

    Args:
        evidence: of the run.
        ignore: names of rules to leave out.

    Raises:
        UsageError: no rule of a name to leave out.
    """
    rules = [each for each in RULES.values() if each.name not in check_names(ignore)]
    found = tuple(_with_its_name(one, evidence) for one in run_rules(evidence, rules))
    return Diagnosis(
        evidence.name,
        evidence.summary,
        tuple(head_rows(evidence)),
        found,
        tuple(find_missing(evidence, rules, found)),
        evidence.measured,
        (*evidence.notes, *evidence.measured.notes),
    )


def check_names(names: frozenset[str]) -> frozenset[str]:
    """The names.

    Raises:
        UsageError: one of them is that of no rule.
    """
    for name in sorted(names):
        if name not in RULES:
            hint = did_you_mean(name, RULES) or "diagnose --list-rules lists them"
            raise UsageError(f"no rule {name!r}", hint)
    return names


def _with_its_name(finding: Finding, evidence: RunEvidence) -> Finding:
    """A finding whose commands name the run instead of RUN."""
    run = None if evidence.run_dir is None else shlex.quote(str(evidence.run_dir))

    def name(match: re.Match[str]) -> str:
        if match[1]:
            return match[1] + (run or shlex.quote(evidence.name))
        return run or match[0]

    return replace(
        finding,
        cure=tuple(_RUN.sub(name, text) for text in finding.cure),
        decide=_RUN.sub(name, finding.decide),
    )
