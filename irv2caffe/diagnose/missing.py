"""What is not there of a run, and what it would tell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.diagnose.cures import diagnose_with_model
from irv2caffe.diagnose.published import is_published
from irv2caffe.diagnose.registry import available

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Finding
    from irv2caffe.diagnose.registry import Need, Rule

_MAX_NAMES = 6


@dataclass(frozen=True)
class Missing:
    """A thing that would tell more about a run.

    Attributes:
        what: the thing.
        how: how to give it.
        decides: rules that found something, and would be surer with it.
        looks_for: rules that need it.
    """

    what: str
    how: str
    decides: tuple[str, ...]
    looks_for: tuple[str, ...]

    def tells(self) -> Iterator[str]:
        """What it would tell, in up to two sentences."""
        if self.decides:
            yield f"would decide: {_listed(self.decides)}"
        if self.looks_for:
            yield f"would look for: {_listed(self.looks_for)}"

    def as_dict(self) -> dict[str, Any]:
        """The fields for JSON."""
        return asdict(self)


def find_missing(
    evidence: RunEvidence, rules: Iterable[Rule], found: Sequence[Finding]
) -> Iterator[Missing]:
    """What is missing, the most useful first.

    Args:
        evidence: of the run.
        rules: that ran.
        found: what they found.
    """
    has = available(evidence)
    names = {finding.rule for finding in found}
    decides: dict[Need, list[str]] = {}
    looks_for: dict[Need, list[str]] = {}
    for each in rules:
        for need in (*each.needs, *each.settled_by):
            if need in has:
                continue
            place = _first_missing(need, has)
            if each.name in names:
                decides.setdefault(place, []).append(each.name)
            elif need in each.needs:
                looks_for.setdefault(place, []).append(each.name)
    wanted = sorted({*decides, *looks_for}, key=lambda need: -len(decides.get(need, ())))
    for need in wanted:
        if need in {"displays", "tests", "model"} and is_published(Path(evidence.name)):
            continue  # nobody has them
        yield Missing(
            need,
            _how(need, evidence),
            tuple(dict.fromkeys(decides.get(need, ()))),
            tuple(dict.fromkeys(looks_for.get(need, ()))),
        )


def _first_missing(need: Need, has: frozenset[Need]) -> Need:
    """What is to be given first: the solver names the net, and the net the databases."""
    if need == "database" and "net" not in has:
        need = "net"
    return "solver" if need == "net" and "solver" not in has else need


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f", {more} more" if more > 0 else "")


def _how(need: Need, evidence: RunEvidence) -> str:
    """How to give what is missing."""
    if need == "model":
        return diagnose_with_model(evidence)
    if need == "database":
        return f"{_sources(evidence)}: --train-lmdb DB --val-lmdb DB"
    return {
        "displays": "the log has no training loss: display: 20 in the solver",
        "tests": "the log has no accuracy of a test after the start: test_iter and test_interval "
        "in the solver, an Accuracy layer in TEST",
        "solver": "--solver FILE, with its net beside it",
        "net": "--solver FILE, with its net beside it",
    }[need]


def _sources(evidence: RunEvidence) -> str:
    """The databases that the nets name."""
    nets = evidence.check.nets if evidence.check else ()
    names = dict.fromkeys(layer.source for net in nets for layer in net.data_layers)
    return f"{', '.join(list(names)[:3])} cannot be read" if names else "the net names none"
