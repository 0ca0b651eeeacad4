"""Chooses the snapshot to resume from; lists the changes since the last start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import InputError, MissingInputError, UsageError
from irv2caffe.system import read_json_object
from irv2caffe.train.plan.plan_text import as_dict
from irv2caffe.train.run_dir.run_dir import is_finished, read_config, weights_of
from irv2caffe.train.run_dir.snapshots import fix_model_path, newest_complete, pairs, problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.train.plan.plan import Plan
    from irv2caffe.train.run_dir.run_dir import RunDir
    from irv2caffe.train.run_dir.snapshots import Pair


class FinishedError(UsageError):
    """The run is finished."""


def choose_pair(run: RunDir, plan: Plan, say: Callable[[str], None]) -> Pair | None:
    """The pair to resume from, with the model path fixed; None starts from the beginning.

    Raises:
        InputError: the newest complete snapshot belongs to another net, or all are missing.
        UnreadableError: there are snapshots, but they cannot be read.
        FinishedError: the run is finished.
    """
    net = plan.job.train_net
    found = (pair for pair in pairs(run.snapshots) if not problem(pair, check_finite=False))
    newest = next(found, None)
    why = problem(newest, net, check_finite=False) if newest is not None else ""
    if why:
        hint = "put the run's own net back, or start a new run with --weights from this model"
        raise InputError(why, hint)
    pair, problems = newest_complete(run.snapshots, net)
    for why in problems:
        say(f"skipped snapshot: {why}")
    if pair is None:
        _check_not_emptied(run)
        _check_weights(run)
        say("there is no complete snapshot yet: starting from the beginning")
        return None
    # Caffe tests after its last snapshot.
    max_iter = plan.solver.max_iter
    if pair.iteration > max_iter or (pair.iteration == max_iter and is_finished(run)):
        raise FinishedError(
            f"{run.path} is finished: its snapshot is of iteration {pair.iteration:,}",
            "--epochs makes the run longer; a new run starts without --resume",
        )
    if fix_model_path(pair):
        say(f"corrected the path of the model in {pair.state.name}")
    if pair.iteration == max_iter:
        say("all iterations are done; only the last test is missing")
    else:
        begins = f"{plan.engine.title} reads a database from its first record again"
        say(f"{begins}; the learning rate continues")
    return pair


def _check_not_emptied(run: RunDir) -> None:
    """Raises InputError if the run had snapshots, but their folder is empty."""
    known = read_json_object(run.state).get("snapshot")
    if known and not any(run.snapshots.iterdir()):
        raise InputError(
            f"{run.snapshots} is empty; it held {Path(str(known)).name}",
            "check that its disk is mounted; if it was deleted, start a new run without --resume",
        )


def _check_weights(run: RunDir) -> None:
    """Raises MissingInputError if the model that the run started from is missing."""
    for name in weights_of(read_config(run.path)):
        if not Path(name).is_file():
            raise MissingInputError(
                f"{run.path} started from the weights in {name}, which is missing",
                "put it back, or start a new run with --solver and --weights",
            )


def differences(config: dict[str, Any], plan: Plan) -> list[str]:
    """The differences from the last start, one line each."""
    before, now = config.get("plan"), as_dict(plan)
    if not isinstance(before, dict):
        return []
    try:
        return _differences(before, now)
    except (AttributeError, KeyError, TypeError):
        return ["config.json, which was not written by this program"]


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    lines = [
        f"{name} {_short(before.get(name))} -> {_short(now[name])}"
        for name in ("gpus", "batch_size", "effective_batch", "nets", "databases")
        if before.get(name) != now[name]
    ]
    engine = {"name": "caffe", **before.get("engine", before.get("caffe", {}))}  # until 0.2
    for name in ("name", "version", "flavor", "program"):
        old, new = engine.get(name), now["engine"][name]
        if old != new:
            lines.append(f"engine{'' if name == 'name' else f' {name}'} {old} -> {new}")
    options = engine.get("options", {})
    for name, new in now["engine"]["options"].items():
        if name in options and options[name] != new:
            lines.append(f"{name} {options[name]} -> {new}")
    old_values, new_values = before.get("config", {}), now["config"]
    for name in dict.fromkeys([*old_values, *new_values]):
        old = old_values.get(name, {}).get("value")
        new = new_values.get(name, {}).get("value")
        if old != new and name not in _NOT_COMPARED:
            lines.append(f"{name} {old} -> {new}")
    return lines


# Fields that the run's copy of the solver overrides, or that are compared above.
_NOT_COMPARED = frozenset(
    {
        "net", "train_net", "test_net", "snapshot_prefix", "solver_mode", "display",
        "snapshot_after_train", "snapshot_format", "batch_size",
    }
)  # fmt: skip


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_short(item) for item in value) or "none"
    if isinstance(value, dict) and "source" in value:
        shape = "x".join(map(str, value["shape"]))
        return f"{value['source']} ({value['num_records']} x {shape})"
    return str(value)
