"""What is not there of a run, and what it would tell."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from irv2caffe.diagnose.registry import available

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Finding
    from irv2caffe.diagnose.registry import Need, Rule

_MAX_NAMES = 6


def missing_rows(
    evidence: RunEvidence, rules: Iterable[Rule], found: Sequence[Finding]
) -> Iterator[tuple[str, str]]:
    """Name of each missing thing, with how to give it and the rules that it would serve.

    Args:
        evidence: of the run.
        rules: that ran.
        found: what they found; these come first.
    """
    has = available(evidence)
    names = {finding.rule for finding in found}
    wanted: dict[Need, list[Rule]] = {}
    for each in sorted(rules, key=lambda rule: rule.name not in names):
        for need in (*each.needs, *each.settled_by):
            if need not in has:
                wanted.setdefault(_file_of(need, has), []).append(each)
    for need, served in wanted.items():
        unique = list(dict.fromkeys(rule.name for rule in served))
        shown = ", ".join(unique[:_MAX_NAMES])
        more = len(unique) - _MAX_NAMES
        yield need, f"{_how(need, evidence)}; for: {shown}" + (f", {more} more" * (more > 0))


def _file_of(need: Need, has: frozenset[Need]) -> Need:
    """The solver, which names the net, where both are missing."""
    return "solver" if need == "net" and "solver" not in has else need


def _how(need: Need, evidence: RunEvidence) -> str:
    """How to give what is missing."""
    if need == "model":
        is_run = evidence.run_dir is not None
        model = "best" if is_run else "FILE.caffemodel"
        return f"irv2caffe diagnose {shlex.quote(evidence.name)} --model {model}"
    if need == "database":
        return f"{_sources(evidence)}: --train-lmdb DB --val-lmdb DB"
    return {
        "displays": "the log has no training loss; display: 20 in the solver",
        "tests": "the log has no test with an accuracy; test_iter, test_interval, and an Accuracy "
        "layer in TEST",
        "solver": "--solver FILE, with its net beside it",
        "net": "--solver FILE, with its net beside it",
    }[need]


def _sources(evidence: RunEvidence) -> str:
    """The databases that the nets name."""
    nets = evidence.check.nets if evidence.check else ()
    names = dict.fromkeys(layer.source for net in nets for layer in net.data_layers)
    return f"{', '.join(list(names)[:3])} cannot be read" if names else "no net names one"
