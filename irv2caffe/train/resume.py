"""Where a run goes on, what has changed since, and what an interrupted trainer left behind."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.caffe.docker import kill_container, remove_container
from irv2caffe.errors import InputError, MissingInputError, UsageError
from irv2caffe.system import open_regular, read_json_object
from irv2caffe.train.lock import is_alive, is_locked, read_owner
from irv2caffe.train.plan_text import as_dict
from irv2caffe.train.run_dir import read_config, weights_of
from irv2caffe.train.snapshots import mend, newest_whole, pairs, problem
from irv2caffe.train.tracker import Tracker
from irv2caffe.train.verdict import is_cut_short

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.train.plan import Plan
    from irv2caffe.train.run_dir import RunDir
    from irv2caffe.train.snapshots import Pair
    from irv2caffe.train.tracker import StartState

# Caffe whose trainer was killed has been sent a SIGINT: it finishes its iteration and snapshot.
_ORPHAN_S = 600.0
_HANG_S = 10.0
_LOG_TAIL_BYTES = 1 << 16


def wait_for_orphan(run: RunDir, say: Callable[[str], None]) -> None:
    """Waits until a Caffe whose trainer was killed has written its snapshot; then ends it."""
    owner = read_owner(run)
    if owner is None or owner.host != platform.node() or is_alive(owner.pid, owner.began):
        return
    if is_alive(owner.child_pid, owner.child_began):
        say(f"a Caffe whose trainer was killed still works here (process {owner.child_pid})")
        deadline = time.monotonic() + _ORPHAN_S
        stopped_at: float | None = None
        while is_alive(owner.child_pid, owner.child_began) and time.monotonic() < deadline:
            if stopped_at is None and last_words(run).stopped:
                stopped_at = time.monotonic()
            if stopped_at is not None and time.monotonic() > stopped_at + _HANG_S:
                break  # with several GPUs it hangs after that
            time.sleep(0.1)
        if is_alive(owner.child_pid, owner.child_began):
            say("it did not end by itself: killed")
            if owner.container:
                kill_container(owner.container)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(owner.child_pid, signal.SIGKILL)
    if owner.container:
        remove_container(owner.container)
    for _ in range(50):  # the kernel needs a moment to let go of the lock
        if not is_locked(run):
            return
        time.sleep(0.1)


def last_words(run: RunDir) -> StartState:
    """What the end of the last start's log says."""
    tracker = Tracker()
    try:
        with open_regular(run.log_of(run.num_starts())) as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        tracker.line(line)
    return tracker.now


def choose_pair(run: RunDir, plan: Plan, say: Callable[[str], None]) -> Pair | None:
    """The pair to go on from, with the path in it mended; None begins anew.

    Raises:
        InputError: the newest whole snapshot is of another net, or all of them are gone.
        UnreadableError: there are snapshots, and a disk keeps them from being read.
        UsageError: the run is finished.
    """
    net = plan.job.train_net
    for newest in pairs(run.snapshots):
        if problem(newest, check_finite=False):
            continue
        why = problem(newest, net, check_finite=False)
        if why:
            raise InputError(
                why, "put the run's own net back, or start a new run with --weights from this model"
            )
        break
    pair, problems = newest_whole(run.snapshots, net)
    for why in problems:
        say(f"passed over: {why}")
    if pair is None:
        _refuse_emptied(run)
        _refuse_without_weights(run)
        say("there is no whole snapshot yet: the run begins anew")
        return None
    if _is_finished(run, pair, plan.solver.max_iter):
        raise UsageError(
            f"{run.path} is finished: its snapshot is of iteration {pair.iteration:,}",
            "--epochs makes the run longer; a new run starts without --resume",
        )
    if mend(pair):
        say(f"{pair.state.name} names the model beside it now")
    if pair.iteration == plan.solver.max_iter:
        say("all iterations are done; what comes after the last is not")
    else:
        say("Caffe reads a database from its first record again; the learning rate goes on")
    return pair


def _refuse_emptied(run: RunDir) -> None:
    """Raises InputError where snapshots were known and their folder is empty: another disk?"""
    known = read_json_object(run.state).get("snapshot")
    if known and not any(run.snapshots.iterdir()):
        raise InputError(
            f"{run.snapshots} is empty, and {Path(str(known)).name} was there",
            "is its disk there? Where it was deleted, start a new run without --resume",
        )


def _refuse_without_weights(run: RunDir) -> None:
    """Raises MissingInputError where a run that begins anew began from a model that is gone."""
    for name in weights_of(read_config(run.path)):
        if not Path(name).is_file():
            raise MissingInputError(
                f"{run.path} began from the weights in {name}, which is not there",
                "put it back, or start a new run with --solver and --weights",
            )


def _is_finished(run: RunDir, pair: Pair, max_iter: int) -> bool:
    """Whether there is nothing left; Caffe tests after its last snapshot."""
    if pair.iteration != max_iter:
        return pair.iteration > max_iter
    last = last_words(run)
    return last.done and not is_cut_short(last)


def differences(config: dict[str, Any], plan: Plan) -> list[str]:
    """What is different from the last start, one line each."""
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
    for name in ("version", "flavor", "program"):
        old, new = before.get("caffe", {}).get(name), now["caffe"][name]
        if old != new:
            lines.append(f"caffe {name} {old} -> {new}")
    old_values, new_values = before.get("config", {}), now["config"]
    for name in dict.fromkeys([*old_values, *new_values]):
        old = old_values.get(name, {}).get("value")
        new = new_values.get(name, {}).get("value")
        if old != new and name not in _OURS:
            lines.append(f"{name} {old} -> {new}")
    return lines


# Fields of the solver that the run folder's copy says in its own way, and what stands above.
_OURS = frozenset(
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
