"""A finding as lines of text, for every command that shows findings."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irv2caffe.check.finding import Finding

_WIDTH = 96
_MAX_PLACES = 3


def finding_lines(finding: Finding, *, source: bool = True) -> list[str]:
    """What was found, where, why it matters, and how to correct it; wrapped at 96 columns.

    Args:
        finding: the finding.
        source: whether to show where the fact comes from.
    """
    rows = [("at", _places(finding)), ("why", finding.why), ("fix", finding.fix)]
    rows += [("see", finding.source)] * source
    lines = [f"{finding.severity.label}: {finding.what}  [{finding.rule}]"]
    for name, text in rows:
        lines += textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=f"  {name:<4}",
            subsequent_indent=" " * 6,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _places(finding: Finding) -> str:
    """Returns the places; if there are many, their number and the first."""
    places = finding.places
    if len(places) <= _MAX_PLACES:
        return ", ".join(map(str, places))
    kind = "layers" if places[0].layer else "places"
    return f"{len(places)} {kind}, first: {places[0]}"
