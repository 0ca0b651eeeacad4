"""Controls a running trainer from another shell: requests as files, the state as JSON.

Files also reach a trainer on another machine that shares the folder, and need no process number,
which may have been reused.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import write_error
from irv2caffe.errors import InputError
from irv2caffe.system import open_for_writing, read_json_object
from irv2caffe.train.run_dir.failure_causes import RESUME_COMMAND
from irv2caffe.train.run_dir.lock import is_locked, read_owner
from irv2caffe.train.run_dir.run_dir import is_finished, read_config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from irv2caffe.train.run_dir.run_dir import RunDir

STOP, SNAPSHOT = "stop", "snapshot"
_POLL_S = 1.0
_ANSWER_S = 60.0


def _folder(run: RunDir) -> Path:
    return run.path / "control"


class Requests:
    """The requests of other shells to this trainer."""

    def __init__(self, run: RunDir) -> None:
        """Discards requests to an earlier trainer."""
        self._folder = _folder(run)
        self._next = 0.0
        self.take(at_once=True)

    def take(self, *, at_once: bool = False) -> set[str]:
        """Takes the new requests; checks once a second, or ``at_once``."""
        now = time.monotonic()
        if now < self._next and not at_once:
            return set()
        self._next = now + _POLL_S
        found: set[str] = set()
        if self._folder.is_symlink():
            return found
        for name in (STOP, SNAPSHOT):
            with contextlib.suppress(OSError):
                (self._folder / name).unlink()
                found.add(name)
        return found


def request(run: RunDir, what: str) -> None:
    """Sends a request to the trainer of a run folder; waits until it is taken.

    Raises:
        InputError: no trainer is running there, or it does not answer.
        OutputError: the folder may not be written.
    """
    if not is_locked(run):
        raise InputError(
            f"no training is running in {run.path}",
            f"continue it with {RESUME_COMMAND} {shlex.quote(str(run.path))}",
        )
    file = _folder(run) / what
    try:
        file.parent.mkdir(exist_ok=True)
        if file.parent.is_symlink():
            raise InputError(
                f"{file.parent} is a link; requests are only written into a real folder"
            )
        os.close(open_for_writing(file, os.O_WRONLY))
    except OSError as error:
        raise write_error(file, error) from error
    deadline = time.monotonic() + _ANSWER_S
    while file.exists():
        if time.monotonic() > deadline or not is_locked(run):
            file.unlink(missing_ok=True)
            raise InputError(
                f"the training in {run.path} does not answer",
                "irv2caffe train --status RUN shows its state",
            )
        time.sleep(0.1)


def stop_run(run: RunDir, say: Callable[[str], None]) -> dict[str, Any]:
    """Makes a training write a snapshot and stop; waits for its end and returns its status.

    Raises:
        InputError: no trainer is running there.
    """
    request(run, STOP)
    say(f"requested a stop of {run.path}; waiting for its snapshot")
    while is_locked(run):
        time.sleep(0.2)
    return status(run)


def snapshot_now(run: RunDir, say: Callable[[str], None]) -> dict[str, Any]:
    """Makes a training write a snapshot; waits until it is verified and returns the status.

    Raises:
        InputError: no trainer is running there, or it ended before the snapshot.
    """
    before = read_json_object(run.state).get("num_snapshots")
    request(run, SNAPSHOT)
    say(f"requested a snapshot of {run.path}, written after the current iteration")
    while is_locked(run):
        state = read_json_object(run.state)
        if state.get("num_snapshots") != before:
            return status(run)
        time.sleep(0.2)
    raise InputError(f"the training in {run.path} ended before it wrote a snapshot")


def status(run: RunDir) -> dict[str, Any]:
    """The state of a running training, or how it ended."""
    config = read_config(run.path)
    working = is_locked(run)
    owner = read_owner(run) if working else None
    return {
        **read_json_object(run.state),
        "run_dir": str(run.path),
        "working": working,
        "host": owner.host if owner else None,
        "pid": owner.pid if owner else None,
        "ending": None if working else ending_of(run, config),
        "why": None if working else config.get("why"),
    }


def ending_of(run: RunDir, config: Mapping[str, Any]) -> str:
    """How a run ended on which nobody works.

    Args:
        run: the run folder.
        config: its ``config.json``.
    """
    ending = config.get("ending", "interrupted")
    if ending == "running":  # its trainer was killed
        ending = "finished" if is_finished(run) else "interrupted"
    return str(ending)


def status_text(values: dict[str, Any]) -> list[str]:
    """A status as lines of text."""
    lines = [f"run        {values['run_dir']}"]
    if values["working"]:
        where = f", process {values['pid']} on {values['host']}" if values["pid"] else ""
        lines.append(f"state      {values.get('phase', 'starting')}{where}")
    else:
        why = f": {values['why']}" if values.get("why") else ""
        lines.append(f"ended      {values['ending']}{why}")
    best = values.get("best")
    values = {**values, "best": best.get("text") if isinstance(best, dict) else None}
    labels = {"progress": "progress", "snapshot": "snapshot", "best": "best", "starts": "starts"}
    labels |= {"updated": "as of"}
    shown = ((label, values.get(name)) for name, label in labels.items())
    return lines + [f"{label:10} {value}" for label, value in shown if value is not None]
