"""A diagnosis as lines of text."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from irv2caffe.diagnose.finding import Confidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from irv2caffe.diagnose.diagnosis import Diagnosis
    from irv2caffe.diagnose.finding import Finding

WIDTH = 80
_INDENT = 11
_COMMAND = re.compile(r"irv2caffe (?:[^;:]|[;:]\S)*")  # without words of a sentence


def diagnosis_lines(
    diagnosis: Diagnosis, least: int = Confidence.UNLIKELY, width: int = WIDTH
) -> list[str]:
    """What was read, the findings, and what is missing.

    Args:
        diagnosis: of a run.
        least: the lowest confidence to show.
        width: columns; commands may be longer, so that they can be copied.
    """
    lines = [*_wrapped(diagnosis.name, width)]
    for name, text in diagnosis.head:
        lines += _row(name, [text], width)
    for finding in diagnosis.findings:
        if finding.confidence >= least:
            lines += ["", *finding_lines(finding, width)]
    if diagnosis.missing:
        lines += ["", "what would tell more"]
        for one in diagnosis.missing:
            lines += _row(one.what, [one.how], width)
            for text in one.tells():
                lines += _row("", [text], width)
    return [*lines, "", *_wrapped(f"{diagnosis.name}: {counted(diagnosis.findings)}", width)]


def finding_lines(finding: Finding, width: int = WIDTH) -> list[str]:
    """The symptom, and below it the cause and what speaks for and against it."""
    head = f"{finding.confidence.label}: {finding.symptom}  [{finding.rule}]"
    lines = _wrapped(head, width, rest="    ")
    for name, texts in rows_of(finding):
        lines += _row(name, texts, width)
    return lines


def rows_of(finding: Finding) -> list[tuple[str, tuple[str, ...]]]:
    """The parts of a finding below its symptom, each with its heading; without empty ones."""
    rows = [
        ("cause", (finding.cause,)),
        ("evidence", finding.evidence),
        ("against", finding.against),
        ("do", finding.cure),
        ("decide", (finding.decide,)),
        ("source", (finding.source,)),
    ]
    return [(name, texts) for name, texts in rows if any(texts)]


def brief_line(finding: Finding) -> str:
    """A finding in one line."""
    return f"{finding.confidence.label}: {' '.join(finding.symptom.split())}  [{finding.rule}]"


def counted(findings: Iterable[Finding]) -> str:
    """How many findings there are of each confidence."""
    found = [finding.confidence for finding in findings]
    counts = [f"{found.count(each)} {each.label}" for each in reversed(Confidence) if each in found]
    return ", ".join(counts) or "nothing found"


def is_command(text: str) -> bool:
    """Whether a text is a command to type."""
    return _COMMAND.fullmatch(text) is not None


def _row(name: str, texts: Sequence[str], width: int) -> list[str]:
    """Texts beside a heading, one below the other, with a dash before each if there are several."""
    lines: list[str] = []
    dash = "- " if len(texts) > 1 else ""
    for text in texts:
        if is_command(text):
            lines.append(dash + text)
        else:
            lines += _wrapped(dash + text, width - _INDENT, rest=" " * len(dash))
    space = " " * _INDENT
    return [f"  {name:<{_INDENT - 2}}{lines[0]}", *(space + line for line in lines[1:])]


def _wrapped(text: str, width: int, rest: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    ) or [""]
