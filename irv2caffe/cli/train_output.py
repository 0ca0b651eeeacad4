"""Output of train: the plan, the result, and --status, --snapshot-now, --stop."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe import __version__, ui
from irv2caffe.atomic import write_text
from irv2caffe.cli.plot_log import summary_lines
from irv2caffe.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    Irv2CaffeError,
    UsageError,
)
from irv2caffe.own_files import refuse_foreign

if TYPE_CHECKING:
    from irv2caffe.diagnose.diagnosis import Diagnosis
    from irv2caffe.train.engines.engine import Engine
    from irv2caffe.train.plan.plan import Plan, TrainOptions
    from irv2caffe.train.run.result import TrainResult
    from irv2caffe.train.run.smoke_test import SmokeResult

_MAX_CAUSES = 3


def show_plan(
    solver: Path, engine: Engine, train_options: TrainOptions, *, as_json: bool, config: bool
) -> int:
    """--dry-run and --print-config."""
    from irv2caffe.train.plan.findings import lines as finding_lines
    from irv2caffe.train.plan.make_plan import make_plan
    from irv2caffe.train.plan.plan_text import as_dict, rows

    plan = make_plan(solver, engine, train_options)
    if as_json:
        values = as_dict(plan)
        ui.show_json(values["config"] if config else values)
    elif config:
        ui.show_table(
            ("value", "is", "from"), [(v.name, str(v.value), v.source) for v in plan.values]
        )
    else:
        for name, text in rows(plan):
            ui.show(f"{name:16} {text}")
        for line in (*plan.notes, *finding_lines(plan, with_notes=True)):
            ui.show(line)
    return _problems(plan)


def _problems(plan: Plan) -> int:
    for problem in plan.problems:
        ui.show_error(problem)
    return max((problem.exit_code for problem in plan.problems), default=EXIT_DONE)


def show_smoke_result(result: SmokeResult, as_json: bool) -> int:
    """Shows the measurements of a smoke test; returns the exit code."""
    if as_json:
        ui.show_json(asdict(result))
    else:
        for line in result.text():
            ui.show(line)
    return EXIT_DONE


def show_result(result: TrainResult, as_json: bool) -> int:
    """Shows figures and ending of a training; returns the exit code."""
    from irv2caffe.train.run.verdict import Ending

    verdict = result.verdict
    diagnosis = None if result.summary is None else _diagnosis(result.run_dir)
    if diagnosis is not None:
        _keep(diagnosis, result.run_dir)
    told = _told(diagnosis)
    if as_json:
        found = None if diagnosis is None else diagnosis.as_dict()["findings"]
        ui.show_json({**result.as_dict(), "diagnosis": found})
    else:
        for line in summary_lines(result.summary) if result.summary is not None else ():
            ui.show(line)
        if result.snapshot is not None:
            ui.show(f"last snapshot         {result.snapshot}")
        if result.best is not None:
            ui.show(f"best snapshot         {result.best.weights} ({result.best.text()})")
        for line in told:
            ui.show(line)
        ui.show(f"{verdict.ending}: {result.run_dir}")
    if told:
        ui.say_next("diagnose", result.run_dir)
    if verdict.ending is Ending.FINISHED:
        for words in (("evaluate",), ("classify", "IMAGE..."), ("deploy", "--out", "bundle")):
            ui.say_next(words[0], result.run_dir, *words[1:])
        return EXIT_DONE
    ui.say(f"irv2caffe: {verdict.ending}: {verdict.why}")
    ui.say(f"  hint: {verdict.hint}")
    return EXIT_INTERRUPTED if verdict.ending is Ending.STOPPED else EXIT_FAILED


def _diagnosis(run_dir: Path) -> Diagnosis | None:
    """What the log tells of why a run is not better; None, with a line, if that fails."""
    try:
        from irv2caffe.diagnose.diagnosis import diagnose
        from irv2caffe.diagnose.gather import Request, gather

        return diagnose(gather(Request(run_dir, reads_databases=False)))
    except Exception as error:  # noqa: BLE001 - the training is over, and its result must be told
        ui.say(f"no diagnosis: {error or type(error).__name__}")
        return None


def _keep(diagnosis: Diagnosis, run_dir: Path) -> None:
    """Writes ``diagnosis.json``; a line if that fails."""
    from irv2caffe.train.run_dir.run_dir import RunDir

    path = RunDir(run_dir).diagnosis
    try:
        refuse_foreign(path)
        values = {"program": f"irv2caffe {__version__}", **diagnosis.as_dict()}
        write_text(path, ui.json_text(values) + "\n")
    except (Irv2CaffeError, OSError) as error:
        ui.say(f"no {path.name}: {error}")


def _told(diagnosis: Diagnosis | None) -> list[str]:
    """The first causes that are likely, a line each."""
    from irv2caffe.diagnose.finding import LIKELY
    from irv2caffe.diagnose.text import brief_line

    findings = () if diagnosis is None else diagnosis.findings
    return [brief_line(one) for one in findings if one.confidence >= LIKELY][:_MAX_CAUSES]


def from_another_shell(asked: dict[str, str | None], as_json: bool) -> int:
    """--status, --snapshot-now and --stop; an empty value is the latest run."""
    from irv2caffe.train.run_dir import control
    from irv2caffe.train.run_dir.folders import existing_run_dir

    wanted = {name: path for name, path in asked.items() if path is not None}
    if len(wanted) > 1:
        raise UsageError("--status, --snapshot-now and --stop: one at a time")
    ((name, path),) = wanted.items()
    run = existing_run_dir(Path(path) if path else None)
    if name == "status":
        values = control.status(run)
    elif name == "stop":
        values = control.stop_run(run, ui.say)
    else:
        values = control.snapshot_now(run, ui.say)
    if as_json:
        ui.show_json(values)
    else:
        for line in control.status_text(values):
            ui.show(line)
    return EXIT_DONE
