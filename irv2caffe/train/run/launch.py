"""Starts a training in a new run folder, or resumes one in an existing folder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from irv2caffe.train.plan.findings import lines as finding_lines
from irv2caffe.train.plan.make_plan import make_plan
from irv2caffe.train.plan.plan import Plan, TrainOptions
from irv2caffe.train.run import config_json, prepare
from irv2caffe.train.run.caffe_log import concatenate_logs
from irv2caffe.train.run.metrics_jsonl import rebuild
from irv2caffe.train.run.options import SupervisionOptions
from irv2caffe.train.run.restart_loop import run_training
from irv2caffe.train.run.result import TrainResult, conclude
from irv2caffe.train.run.resume import FinishedError, choose_pair, differences
from irv2caffe.train.run.verdict import Ending, Verdict
from irv2caffe.train.run_dir.folders import (
    add_missing_folders,
    existing_run_dir,
    link_latest,
    new_run_dir,
    remove_leftovers,
)
from irv2caffe.train.run_dir.lock import locked
from irv2caffe.train.run_dir.orphan import wait_for_orphan
from irv2caffe.train.run_dir.run_dir import RunDir, read_config
from irv2caffe.train.run_dir.snapshots import newest_complete

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from irv2caffe.panel import Status
    from irv2caffe.train.engines.engine import Engine


def train(
    solver: Path,
    engine: Engine,
    train_options: TrainOptions = TrainOptions(),  # noqa: B008 - frozen
    options: SupervisionOptions = SupervisionOptions(),  # noqa: B008
    *,
    say: Callable[[str], None] = lambda _: None,
    status: Callable[[Status], None] = lambda _: None,
) -> TrainResult:
    """Trains in a new run folder, from the beginning or from a snapshot of another training.

    Args:
        solver: a solver prototxt, which names the net.
        engine: the program that trains.
        train_options: the options of the training; the default run folder is ``runs/DATE-TIME``.
        options: the options of its supervision.
        say: called with messages for the user.
        status: called with the status, once a second.

    Raises:
        Irv2CaffeError: the checks before the start found a problem.
    """
    plan = make_plan(solver, engine, train_options)
    if plan.problems:  # all that is to be mended at once
        for line in finding_lines(plan):
            say(line)
    plan.raise_problems()
    run = new_run_dir(train_options.run_dir)
    with locked(run) as lock:
        remove_leftovers(run)
        pair = prepare.write_inputs(run, plan, options)
        link_latest(run)
        return run_training(run, plan, options, lock, pair, say=say, status=status)


def resume(
    engine: Engine,
    train_options: TrainOptions = TrainOptions(),  # noqa: B008
    options: SupervisionOptions = SupervisionOptions(),  # noqa: B008
    *,
    say: Callable[[str], None] = lambda _: None,
    status: Callable[[Status], None] = lambda _: None,
) -> TrainResult:
    """Resumes a run from its newest complete snapshot; see :func:`train`.

    Raises:
        MissingInputError: there is no run.
        InputError: the net has changed, or another training uses the folder.
        UsageError: the run is finished.
    """
    run = existing_run_dir(train_options.run_dir)
    add_missing_folders(run)
    wait_for_orphan(run, say)
    with locked(run) as lock:
        remove_leftovers(run)
        plan = make_plan(run.solver, engine, replace(train_options, run_dir=run.path, moved=True))
        plan.raise_problems()
        try:
            pair = choose_pair(run, plan, say)
        except FinishedError:
            _record_finished(run, plan, say)
            raise
        for line in differences(read_config(run.path), plan):
            say(f"changed since the last start: {line}")
        prepare.write_inputs(run, plan, options)
        say(f"resuming from iteration {pair.iteration if pair is not None else 0:,}")
        link_latest(run)
        return run_training(run, plan, options, lock, pair, say=say, status=status)


def _record_finished(run: RunDir, plan: Plan, say: Callable[[str], None]) -> None:
    """Completes the records of a finished run whose trainer was killed before writing them."""
    if read_config(run.path).get("ending") != "running":
        return
    concatenate_logs(run.log, run.logs)
    rebuild(run, plan.effective_batch, plan.num_train, before=None)
    verdict = Verdict(Ending.FINISHED)
    newest, _ = newest_complete(run.snapshots)
    config_json.record_end(run, verdict, None, plan.solver.max_iter)
    conclude(run, verdict, newest, plan.num_train, say)
