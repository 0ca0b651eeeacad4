"""Registers rules with a decorator, and runs them.

A rule is a function from evidence to findings. Importing :mod:`irv2caffe.diagnose.rules` fills the
list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from irv2caffe.diagnose.evidence import RunEvidence
from irv2caffe.diagnose.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

Need = Literal["displays", "tests", "solver", "net", "database", "model"]
_Function = Callable[[RunEvidence], Iterator[Finding]]


@dataclass(frozen=True)
class Rule:
    """A rule of the list.

    Attributes:
        name: of the cause, with dashes.
        summary: the first line of its docstring.
        topic: name of its module.
        needs: what it cannot do without; it is skipped if one of them is missing.
        settled_by: what would make it more certain, or tell it from other causes.
        find: the findings of the rule in a run.
    """

    name: str
    summary: str
    topic: str
    needs: tuple[Need, ...]
    settled_by: tuple[Need, ...]
    find: _Function


RULES: dict[str, Rule] = {}
# Rules on curves that say that tests do not show the net, without knowing why; who knows settles
# them.
DOUBT_TESTS = ("first-epoch-gap", "validation-at-chance", "unchecked-databases", "fixed-order")


def rule(
    name: str, *, needs: tuple[Need, ...] = (), settled_by: tuple[Need, ...] = ()
) -> Callable[[_Function], _Function]:
    """Adds a rule."""

    def register(function: _Function) -> _Function:
        assert name not in RULES, name
        summary = (function.__doc__ or "").strip().splitlines()[0]
        topic = function.__module__.rpartition(".")[2]
        RULES[name] = Rule(name, summary, topic, needs, settled_by, function)
        return function

    return register


def available(evidence: RunEvidence) -> frozenset[Need]:
    """What there is of a run."""
    has: dict[Need, bool] = {
        "displays": bool(evidence.run.table.train),
        "tests": bool(evidence.tests),
        "solver": evidence.has_solver,
        "net": evidence.net("TRAIN") is not None,
        "database": bool(evidence.check and evidence.check.databases),
        "model": bool(evidence.measured.weights),
    }
    return frozenset(name for name, is_there in has.items() if is_there)


def run_rules(evidence: RunEvidence, rules: Iterable[Rule]) -> list[Finding]:
    """The findings of rules, the best supported first."""
    has = available(evidence)
    found = [
        replace(finding, rule=each.name)
        for each in rules
        if has.issuperset(each.needs)
        for finding in each.find(evidence)
    ]
    return sorted(_settled(found), key=lambda one: (-one.confidence, -one.fit))


def _settled(found: list[Finding]) -> list[Finding]:
    """One finding for each cause: what settles others takes over what they say."""
    settled = {name for one in found for name in one.settles}
    result = []
    for one in found:
        others = [other for other in found if other.rule in one.settles and other is not one]
        if one.rule in settled or (one.settles and not others and not one.confidence):
            continue
        evidence, against = (
            tuple(dict.fromkeys(text for other in (one, *others) for text in getattr(other, name)))
            for name in ("evidence", "against")
        )
        result.append(replace(one, evidence=evidence, against=against))
    return result
