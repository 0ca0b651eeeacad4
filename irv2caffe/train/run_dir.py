"""The run folder: its names, its lock, the link to the latest, the point to resume from."""

from __future__ import annotations

import fcntl
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import unwritable, write_bytes, write_text
from irv2caffe.errors import FormatError, InputError, MissingInputError, OutputExistsError
from irv2caffe.proto import messages
from irv2caffe.proto.files import read_binary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RUNS = Path("runs")
_SNAPSHOT = re.compile(r"_iter_(\d+)\.solverstate$")


@dataclass(frozen=True)
class RunDir:
    """The files of one run."""

    path: Path

    @property
    def solver(self) -> Path:
        """The solver as Caffe is given it."""
        return self.path / "solver.prototxt"

    @property
    def log(self) -> Path:
        """Caffe's own log, as it came; a resumed run appends to it."""
        return self.path / "train.log"

    @property
    def snapshots(self) -> Path:
        """The folder of ``.caffemodel`` and ``.solverstate`` files."""
        return self.path / "snapshots"

    @property
    def config(self) -> Path:
        """What the run was made of, as JSON."""
        return self.path / "config.json"

    def write_config(self, values: Mapping[str, Any]) -> None:
        """Writes ``config.json``."""
        write_text(self.config, json.dumps(values, indent=2, default=str) + "\n")


@dataclass(frozen=True)
class Snapshot:
    """A pair of files that a run can be resumed from."""

    iteration: int
    state: Path
    model: Path


def new_run_dir(path: Path | None) -> RunDir:
    """A run folder that does not exist yet: as named, or ``runs/DATE-TIME``.

    Raises:
        OutputExistsError: it holds a run already.
        OutputError: it cannot be made.
    """
    if path is None:
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        path = RUNS / stamp
        for number in range(2, 1000):
            if not path.exists():
                break
            path = RUNS / f"{stamp}-{number}"
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputExistsError(
            f"{path} exists already and is not empty",
            "--resume goes on with the run in it; --run-dir names another folder",
        )
    run = RunDir(path)
    try:
        run.snapshots.mkdir(parents=True)
    except OSError as error:
        raise unwritable(path, error) from error
    return run


def existing_run_dir(path: Path | None) -> RunDir:
    """The run folder to resume: as named, or the one that ``runs/latest`` points at.

    Raises:
        MissingInputError: there is none.
    """
    path = RUNS / "latest" if path is None else path
    if not RunDir(path).solver.is_file():
        raise MissingInputError(
            f"{path} holds no run to resume",
            "--run-dir names the run folder; without --resume a new run starts",
        )
    return RunDir(path.resolve())


def link_latest(run: RunDir) -> None:
    """Points ``latest``, beside the run folder, at it; what is no link there is left alone."""
    link = run.path.parent / "latest"
    if link.exists() and not link.is_symlink():
        return
    aside = link.with_name(f".latest-{os.getpid()}")
    try:
        aside.symlink_to(run.path.name)
        aside.replace(link)
    except OSError:
        aside.unlink(missing_ok=True)  # a file system without links: a convenience is missing


@contextmanager
def locked(run: RunDir) -> Iterator[None]:
    """Holds the run folder; the lock of a process that died is free again by itself.

    Raises:
        InputError: another trainer works in it.
    """
    with (run.path / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another training works in {run.path}", "wait for it, or choose another --run-dir"
            ) from error
        yield


def newest_snapshot(run: RunDir) -> Snapshot:
    """The newest pair whose two files are whole; a torn one is passed over for the one before.

    The solver state names its model by path; where the folder was moved since, the path in it is
    mended.

    Raises:
        MissingInputError: no whole pair.
    """
    numbered = {
        int(match.group(1)): path
        for path in run.snapshots.glob("*.solverstate")
        if (match := _SNAPSHOT.search(path.name))
    }
    for iteration, state in sorted(numbered.items(), reverse=True):
        snapshot = Snapshot(iteration, state, state.with_suffix(".caffemodel"))
        if _is_whole(snapshot):
            return snapshot
    raise MissingInputError(
        f"{run.snapshots} has no whole snapshot to resume from",
        "start a new run: leave out --resume and name another --run-dir",
    )


def _is_whole(snapshot: Snapshot) -> bool:
    try:
        state = read_binary(snapshot.state, messages.SolverState)
        model = read_binary(snapshot.model, messages.NetParameter)
    except (FormatError, MissingInputError):
        return False
    if state.iter != snapshot.iteration or not model.layer:
        return False
    if not Path(state.learned_net).is_file():
        state.learned_net = str(snapshot.model.absolute())
        write_bytes(snapshot.state, state.SerializeToString())
    return True


def read_config(path: Path) -> dict[str, Any]:
    """The ``config.json`` of a run folder; empty where there is none."""
    try:
        values = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
