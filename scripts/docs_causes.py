"""The rules of diagnose for the reference: one page, with a table for each topic."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from docs_rules import escaped

import irv2caffe.diagnose.rules  # noqa: F401  registers the rules
from irv2caffe.diagnose.registry import RULES

if TYPE_CHECKING:
    from irv2caffe.diagnose.registry import Rule

INTRO = """\
`irv2caffe diagnose` has {} rules. Each looks for one cause. It runs if there is what it needs of
the run; with what stands in the last column it is surer of its cause, or tells it from others.
[The guide](../../guide/diagnose.md) says what the confidence of a finding means."""
NEEDS = """\
| word | of the run |
|---|---|
| displays | the training loss in the log |
| tests | errors of tests in the log |
| solver | the solver, as a file or as the log printed it |
| net | the net that is trained, likewise |
| database | a database that the net reads |
| model | a model, which `--model` tests |"""


def causes_page() -> tuple[str, str, list[str]]:
    """Path, title and parts of the page."""
    topics: dict[str, list[Rule]] = {}
    for each in RULES.values():
        topics.setdefault(each.topic, []).append(each)
    parts = [INTRO.format(len(RULES)), NEEDS]
    for topic, rules in topics.items():
        module = sys.modules[f"irv2caffe.diagnose.rules.{topic}"]
        heading = (module.__doc__ or topic).splitlines()[0].rstrip(".")
        rows = ["| rule | looks for | needs | surer with |", "|---|---|---|---|"]
        for each in rules:
            words = (", ".join(each.needs), ", ".join(each.settled_by))
            rows.append(f"| `{each.name}` | {escaped(each.summary)} | {words[0]} | {words[1]} |")
        parts.append(f"## {escaped(heading)}\n\n" + "\n".join(rows))
    return "rules/diagnose.md", "Rules of diagnose", parts
