"""What a rule says, and the list of all rules.

A rule is one small function from evidence to hits. It is told what it looks at: the run as a
whole, the solver, or a net in one of its phases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from irv2caffe.check.evidence import Evidence

Scope = Literal["run", "solver", "net"]


class Severity(IntEnum):
    """How bad it is.

    An error stops Caffe or makes the run worthless; a warning costs accuracy or time in most
    runs; a note is worth knowing, and right in many nets.
    """

    NOTE = 0
    WARNING = 1
    ERROR = 2

    @property
    def label(self) -> str:
        """Its name in lower case."""
        return self.name.lower()


NOTE, WARNING, ERROR = Severity.NOTE, Severity.WARNING, Severity.ERROR


@dataclass(frozen=True, order=True)
class Place:
    """Where something stands.

    Attributes:
        file: as it was named.
        line: from 1; 0 for the file as a whole, where a field is missing.
        layer: name of the layer, or empty.
    """

    file: str
    line: int = 0
    layer: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{self.layer} ({where})" if self.layer else where


@dataclass(frozen=True)
class Hit:
    """What a rule found.

    Attributes:
        what: the state of things, in one sentence that is equal for all layers it is true of.
        why: why it matters.
        fix: a field to write, or a flag.
        at: where.
        severity: where it is not the rule's usual one.
        source: where it is not the rule's usual one.
    """

    what: str
    why: str
    fix: str
    at: tuple[Place, ...] = ()
    severity: Severity | None = None
    source: str = ""


@dataclass(frozen=True)
class Finding:
    """A hit with the rule's name; equal hits of several layers are one finding.

    Attributes:
        rule: its name.
        severity: note, warning or error.
        what: the state of things.
        why: why it matters.
        source: who says so: a section of the paper, a file of Caffe's, a public thread.
        fix: the way out.
        places: where, each once, in the order of the files.
    """

    rule: str
    severity: Severity
    what: str
    why: str
    source: str
    fix: str
    places: tuple[Place, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        places = [
            {"file": place.file, "line": place.line or None, "layer": place.layer or None}
            for place in self.places
        ]
        return {**vars(self), "severity": self.severity.label, "places": places}


@dataclass(frozen=True)
class Rule:
    """A rule of the list.

    Attributes:
        name: ``topic-and-state``, for --ignore.
        severity: the usual one.
        source: the usual one.
        scope: what it looks at.
        topic: the module it stands in.
        summary: one sentence.
        function: from what it looks at to hits.
    """

    name: str
    severity: Severity
    source: str
    scope: Scope
    topic: str
    summary: str
    function: Callable[..., Iterator[Hit]]

    def apply(self, evidence: Evidence) -> Iterator[Hit]:
        """All hits of the rule."""
        if self.scope == "run":
            yield from self.function(evidence)
        elif self.scope == "net":
            for net in evidence.nets:
                yield from self.function(net, evidence)
        elif evidence.solver is not None:
            yield from self.function(evidence.solver, evidence)


RULES: dict[str, Rule] = {}
_FEW = 3
_OF_THE_TEXT = frozenset({"unknown_fields", "schema"})  # topics that say what is written


def rule(
    name: str, severity: Severity, scope: Scope, source: str
) -> Callable[[Callable[..., Iterator[Hit]]], Callable[..., Iterator[Hit]]]:
    """Puts a function on the list of rules; its docstring is the rule's summary."""

    def register(function: Callable[..., Iterator[Hit]]) -> Callable[..., Iterator[Hit]]:
        assert name not in RULES, name
        summary = (function.__doc__ or "").strip().splitlines()[0]
        topic = function.__module__.rsplit(".", 1)[-1]
        RULES[name] = Rule(name, severity, source, scope, topic, summary, function)
        return function

    return register


def findings(evidence: Evidence, rules: Iterable[Rule]) -> list[Finding]:
    """What the rules find, worst first, equal hits folded into one."""
    folded: dict[tuple[Any, ...], tuple[Rule, Hit, dict[Place, None]]] = {}
    for each in rules:
        for hit in each.apply(evidence):
            if each.topic not in _OF_THE_TEXT and _follows(hit, evidence):
                continue
            key = (each.name, hit.severity, hit.what, hit.why, hit.fix)
            folded.setdefault(key, (each, hit, {}))[2].update(dict.fromkeys(hit.at))
    found = [_finding(each, hit, tuple(places)) for each, hit, places in folded.values()]
    return sorted(_of_one_kind(found), key=lambda finding: -finding.severity)


def _of_one_kind(found: list[Finding]) -> Iterator[Finding]:
    """Many findings that differ in a name or a number only are one."""
    kinds: dict[tuple[Any, ...], list[Finding]] = {}
    for each in found:
        kinds.setdefault((each.rule, each.severity, each.why, each.fix), []).append(each)
    for alike in kinds.values():
        if len(alike) <= _FEW:
            yield from alike
            continue
        what = "; ".join(each.what for each in alike[:2])
        places = dict.fromkeys(place for each in alike for place in each.places)
        what = f"{what}; and {len(alike) - 2:,} more of this kind"
        yield replace(alike[0], what=what, places=tuple(places))


def _follows(hit: Hit, evidence: Evidence) -> bool:
    """Whether it is found only where a field was left out that Caffe does not know."""
    return bool(hit.at) and all(map(evidence.is_altered, hit.at))


def _finding(each: Rule, hit: Hit, places: tuple[Place, ...]) -> Finding:
    severity = each.severity if hit.severity is None else hit.severity
    source = hit.source or each.source
    return Finding(each.name, severity, hit.what, hit.why, source, hit.fix, places)
