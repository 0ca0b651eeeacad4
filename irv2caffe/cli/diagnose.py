"""The command diagnose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irv2caffe import ui
from irv2caffe.cli.completion import runs_and_logs
from irv2caffe.cli.diagnose_options import DIAGNOSE_OPTIONS, LEVELS
from irv2caffe.cli.option_sections import SectionCommand, with_options
from irv2caffe.errors import EXIT_DONE, EXIT_FINDINGS, UsageError

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence

_MEASURING = ("net", "limit", "seed", "engine", "gpus", "caffe")


@click.command("diagnose", cls=SectionCommand, short_help="Find out why a run does not converge.")
@click.argument(
    "sources",
    metavar="RUN_OR_LOG...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    shell_complete=runs_and_logs,
)
@with_options(DIAGNOSE_OPTIONS)
def diagnose_command(
    sources: tuple[Path, ...],
    model: str | None,
    html_file: Path | None,
    force: bool,
    show: str,
    fail_on: str,
    ignore: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> int:
    """Find out why a run does not converge, or stalled, and what to do.

    RUN_OR_LOG is a run folder of train, any log of a Caffe training (several files are the parts
    of one log), rows of plot-log --csv, or a published run: original-2016, lim0606, twtygqyy.
    Without a model only the curves and the files are looked at, which takes seconds. The exit code
    is 3 if something is likely or measured (see --fail-on).
    """
    from irv2caffe.diagnose.diagnosis import check_names, diagnose
    from irv2caffe.diagnose.gather import Request, gather
    from irv2caffe.diagnose.report_section import write_page
    from irv2caffe.diagnose.text import diagnosis_lines
    from irv2caffe.own_files import refuse_foreign

    ignored = check_names(frozenset(ignore))
    if html_file is not None:
        if html_file.resolve() in {path.resolve() for path in sources}:
            raise UsageError(f"--html {html_file}: this is a log that is read", "name another file")
        refuse_foreign(html_file, force=force)
    measuring = {name: options.pop(name) for name in _MEASURING}
    evidence = gather(Request(sources[0], sources[1:], **options))
    if model is not None:
        evidence = _measured(evidence, model, measuring)
    elif measuring["net"] is not None:
        raise UsageError("--net is the net of --model", "add --model best")
    diagnosis = diagnose(evidence, ignored)
    if as_json:
        ui.show_json(diagnosis.as_dict())
    else:
        for line in diagnosis_lines(diagnosis, LEVELS.index(show)):
            ui.show(line)
    if html_file is not None:
        write_page(evidence, diagnosis, html_file)
        ui.say(f"report: {html_file}")
    highest = -1 if diagnosis.highest is None else int(diagnosis.highest)
    return EXIT_FINDINGS if highest >= LEVELS.index(fail_on) else EXIT_DONE


def _measured(evidence: RunEvidence, model: str, options: dict[str, Any]) -> RunEvidence:
    """The evidence with tests of a model."""
    from irv2caffe.diagnose.measure.measure import measure
    from irv2caffe.diagnose.measure.request import MeasureRequest

    return replace(
        evidence, measured=measure(MeasureRequest(model, **options), evidence, ui.progress)
    )
