"""Registers rules with decorators, and runs them.

A rule is a function from evidence to hits. ``@rule`` is for rules about the whole run,
``@solver_rule`` for rules about the solver, ``@net_rule`` for rules about a net in one phase.
Importing :mod:`irv2caffe.check.rules` fills the list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from irv2caffe.check.finding import Finding, Hit, Hits, Place, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from irv2caffe.check.evidence import Evidence, NetEvidence, SolverEvidence
    from irv2caffe.shapes.phases import Phase

_View = TypeVar("_View")
_Function = Callable[[_View], Hits]


@dataclass(frozen=True)
class Rule:
    """A rule of the list.

    Attributes:
        name: ``topic-and-state``, for ``--ignore``.
        severity: severity of its findings, unless a hit overrides it.
        source: where the fact comes from: a file of Caffe, a section of a paper, a public thread.
        topic: name of the module of the rule.
        summary: what the rule finds, in one sentence: the first line of its docstring.
        find: all hits of the rule in a run.
    """

    name: str
    severity: Severity
    source: str
    topic: str
    summary: str
    find: Callable[[Evidence], Hits]


RULES: dict[str, Rule] = {}
# Topics whose findings do not depend on unknown fields that were left out.
_TEXT_TOPICS = frozenset({"unknown_fields", "schema"})
_MAX_SIMILAR = 3  # more findings that differ only in a name or number are merged


def rule(
    name: str, severity: Severity, source: str
) -> Callable[[_Function[Evidence]], _Function[Evidence]]:
    """Adds a rule about the run as a whole."""
    return _decorator(name, severity, source, lambda evidence: [evidence])


def solver_rule(
    name: str, severity: Severity, source: str
) -> Callable[[_Function[SolverEvidence]], _Function[SolverEvidence]]:
    """Adds a rule about the solver; skipped if only a net is checked."""
    return _decorator(name, severity, source, lambda evidence: evidence.with_solver())


def net_rule(
    name: str, severity: Severity, source: str, phase: Phase | None = None
) -> Callable[[_Function[NetEvidence]], _Function[NetEvidence]]:
    """Adds a rule about a net, run for each net of ``phase``, or for all nets."""
    return _decorator(name, severity, source, lambda evidence: evidence.for_each_net(phase))


def _decorator(
    name: str, severity: Severity, source: str, views: Callable[[Evidence], Iterable[_View]]
) -> Callable[[_Function[_View]], _Function[_View]]:
    def register(function: _Function[_View]) -> _Function[_View]:
        def find(evidence: Evidence) -> Hits:
            for view in views(evidence):
                yield from function(view)

        assert name not in RULES, name
        summary = (function.__doc__ or "").strip().splitlines()[0]
        topic = function.__module__.rpartition(".")[2]
        RULES[name] = Rule(name, severity, source, topic, summary, find)
        return function

    return register


def findings(evidence: Evidence, rules: Iterable[Rule]) -> list[Finding]:
    """Runs rules; returns the findings, worst first, with equal hits merged."""
    merged: dict[tuple[Any, ...], tuple[Rule, Hit, dict[Place, None]]] = {}
    for each in rules:
        for hit in each.find(evidence):
            if each.topic not in _TEXT_TOPICS and _follows_from_unknown_field(hit, evidence):
                continue
            key = (each.name, hit.severity, hit.what, hit.why, hit.fix)
            merged.setdefault(key, (each, hit, {}))[2].update(dict.fromkeys(hit.at))
    found = [_finding(each, hit, tuple(places)) for each, hit, places in merged.values()]
    return sorted(_merge_similar(found), key=lambda finding: -finding.severity)


def _follows_from_unknown_field(hit: Hit, evidence: Evidence) -> bool:
    """Whether a hit may be caused only by an unknown field that was left out."""
    return bool(hit.at) and all(map(evidence.is_altered, hit.at))


def _finding(each: Rule, hit: Hit, places: tuple[Place, ...]) -> Finding:
    severity = each.severity if hit.severity is None else hit.severity
    source = hit.source or each.source
    return Finding(each.name, severity, hit.what, hit.why, source, hit.fix, places)


def _merge_similar(found: list[Finding]) -> Iterator[Finding]:
    """Merges many findings that differ only in a name or number into one."""
    groups: dict[tuple[Any, ...], list[Finding]] = {}
    for each in found:
        groups.setdefault((each.rule, each.severity, each.why, each.fix), []).append(each)
    for similar in groups.values():
        if len(similar) <= _MAX_SIMILAR:
            yield from similar
            continue
        what = "; ".join(each.what for each in similar[:2])
        what = f"{what}; and {len(similar) - 2:,} more of this kind"
        places = dict.fromkeys(place for each in similar for place in each.places)
        yield replace(similar[0], what=what, places=tuple(places))
