"""A diagnosis as a section of the HTML report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.diagnose.text import is_command, rows_of
from irv2caffe.plot.curves import Run
from irv2caffe.plot.report import write_report
from irv2caffe.plot.report_section import Card, Command, Section

if TYPE_CHECKING:
    from irv2caffe.diagnose.diagnosis import Diagnosis
    from irv2caffe.diagnose.evidence import RunEvidence

HEADING = "Diagnosis"


def section_of(diagnosis: Diagnosis, name: str) -> Section:
    """The findings as cards, and what would tell more.

    Args:
        diagnosis: of a run.
        name: of the run in the report.
    """
    cards = tuple(
        Card(
            finding.confidence.label,
            f"{finding.symptom} [{finding.rule}]",
            tuple((name, tuple(map(_marked, texts))) for name, texts in rows_of(finding)),
        )
        for finding in diagnosis.findings
    )
    rows = [("read", tuple(text for _, text in diagnosis.head))]
    rows += [(f"no {one.what}", (_marked(one.how), *one.tells())) for one in diagnosis.missing]
    return Section(HEADING, name, cards, tuple(rows))


def _marked(text: str) -> str:
    return Command(text) if is_command(text) else text


def write_page(evidence: RunEvidence, diagnosis: Diagnosis, out: Path) -> None:
    """Writes the report of a run: its curves, and the diagnosis.

    Raises:
        InputError: there is nothing to draw.
        OutputError: the file cannot be written.
    """
    name = name_of(evidence)
    section = section_of(diagnosis, name)
    write_report([Run(name, evidence.run.table, evidence.log)], out, sections=[section])


def name_of(evidence: RunEvidence) -> str:
    """The name of a run in its report: that of its folder, else of its file."""
    folder = evidence.run_dir
    return Path(evidence.name).name if folder is None else folder.resolve().name
