"""The command diagnose."""

from __future__ import annotations

from pathlib import Path

import click

from irv2caffe import ui
from irv2caffe.cli.option_sections import SectionCommand, section
from irv2caffe.errors import EXIT_DONE, EXIT_FINDINGS

_data, _other = section("Files"), section("Other")
_PATH = click.Path(path_type=Path)


@click.command("diagnose", cls=SectionCommand, short_help="Find out why a run does not converge.")
@click.argument("source", metavar="RUN_OR_LOG", type=_PATH)
@_data("--solver", type=_PATH, metavar="FILE", help="Solver of the run.  [default: the run's own]")
@_other("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def diagnose_command(source: Path, solver: Path | None, as_json: bool) -> int:
    """Find out why a run does not converge, or stalled, and what to do.

    RUN_OR_LOG is a run folder of irv2caffe train, or any log of a Caffe training.
    """
    from irv2caffe.diagnose.diagnosis import diagnose
    from irv2caffe.diagnose.gather import Request, gather

    diagnosis = diagnose(gather(Request(source, solver)))
    if as_json:
        ui.show_json(diagnosis.as_dict())
    else:
        for finding in diagnosis.findings:
            ui.show(f"{finding.confidence.label}: {finding.symptom}")
    return EXIT_FINDINGS if diagnosis.findings else EXIT_DONE
