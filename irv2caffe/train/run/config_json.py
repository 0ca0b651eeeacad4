"""Writes ``config.json``: the options of a run, its starts, and how they ended.

The git revision is read from the repository's files, not by the program git: a foreign repository
can name programs that ``git status`` executes (monitors, filters, hooks).
"""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe import __version__, system
from irv2caffe.data.records.database_files import STORED_OPTIONS, read_manifest
from irv2caffe.errors import OutputError
from irv2caffe.system import open_regular, read_regular
from irv2caffe.train.plan.plan_text import as_dict
from irv2caffe.train.run_dir.run_dir import read_config, starts_of

if TYPE_CHECKING:
    from irv2caffe.caffe.command import Command
    from irv2caffe.train.plan.plan import Plan
    from irv2caffe.train.run.options import SupervisionOptions
    from irv2caffe.train.run.verdict import Verdict
    from irv2caffe.train.run_dir.run_dir import RunDir
    from irv2caffe.train.run_dir.snapshots import Pair
_REVISION = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF = re.compile(r"refs/(?!.*(?:\.\.|//))[\w./@+-]+", re.ASCII)
_MAX_BYTES = 1 << 12
_MAX_PACKED_LINES = 1_000_000


def write_config(run: RunDir, plan: Plan, options: SupervisionOptions) -> None:
    """Writes ``config.json``, keeping the starts and the origin of an earlier one."""
    earlier = read_config(run.path)
    revision = git_revision(Path.cwd())
    config = {
        "irv2caffe": __version__,
        "argv": sys.argv,
        "started": earlier.get("started", _now()),
        "solver": earlier.get("solver", plan.options.origin or str(plan.job.path.absolute())),
        "snapshot": earlier.get(
            "snapshot",
            str(plan.options.snapshot.state.absolute()) if plan.options.snapshot else None,
        ),
        "weights": earlier.get("weights", [str(path.absolute()) for path in plan.options.weights]),
        **plan.engine.record(plan.can),
        "gpus": plan.gpus or "none",
        "num_train_images": plan.num_train,
        "num_val_images": plan.num_val,
        "effective_batch": plan.effective_batch,
        "epochs": plan.epochs,
        "plan": as_dict(plan),
        "stored_images": _stored_images(plan) or earlier.get("stored_images"),
        "options": {
            **asdict(options),
            "keep_newest": plan.options.keep_newest,
            "keep_epochs": plan.options.keep_epochs,
            "ignore_findings": plan.options.ignore_findings,
            "best": plan.options.best,
        },
        "versions": system.versions(),
        "machine": system.machine(),
        "git": {"revision": revision} if revision else None,
        "starts": starts_of(earlier),
        "ending": "running",
        "why": None,
    }
    run.write_config({**earlier, **config})


def _stored_images(plan: Plan) -> dict[str, Any] | None:
    """How make-lmdb stored the images of the test, or training, database; for nets in use."""
    for use in sorted(plan.databases, key=lambda use: use.phase):  # TEST before TRAIN
        options = read_manifest(use.source).get("options")
        if isinstance(options, dict):
            return {name: options.get(name) for name in STORED_OPTIONS}
    return None


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def record_start(run: RunDir, number: int, command: Command, plan: Plan, pair: Pair | None) -> None:
    """Adds a start to ``config.json``."""
    config = read_config(run.path)
    starts = starts_of(config)
    starts.append(
        {
            "number": number,
            "time": _now(),
            "argv": list(command.argv),
            "from_iteration": pair.iteration if pair is not None else 0,
            "snapshot": str(pair.state) if pair is not None else None,
            "base_lr": float(f"{plan.solver.base_lr:.7g}"),
            "effective_batch": plan.effective_batch,
            "gpus": plan.gpus or "none",
        }
    )
    run.write_config({**config, "starts": starts, "ending": "running", "why": None})


def record_end(
    run: RunDir, verdict: Verdict, exit_status: int | None, iteration: int | None
) -> None:
    """Completes the last start in ``config.json``."""
    config = read_config(run.path)
    for start in starts_of(config)[-1:]:
        start.update(
            ended=_now(),
            ending=verdict.ending.value,
            why=verdict.why,
            exit_status=exit_status,
            iteration=iteration,
        )
    with contextlib.suppress(OutputError):  # a full disk has been reported already
        run.write_config(config)


def git_revision(folder: Path) -> str | None:
    """The commit that is checked out in a folder, or None if it cannot be determined."""
    for place in (folder.absolute(), *folder.absolute().parents):
        if (place / ".git").exists():
            try:
                return _head(_git_dir(place / ".git"))
            except (OSError, ValueError):
                return None
    return None


def _git_dir(path: Path) -> Path:
    """The git folder, which ``.git`` names if it is a file, as in a worktree or submodule."""
    if path.is_dir():
        return path
    return path.parent / _line(path).removeprefix("gitdir: ")


def _head(git: Path) -> str | None:
    head = _line(git / "HEAD")
    if not head.startswith("ref: "):
        return head if _REVISION.fullmatch(head) else None
    ref = head.removeprefix("ref: ")
    if not _REF.fullmatch(ref):
        return None
    common = git / _line(git / "commondir") if (git / "commondir").is_file() else git
    for place in (git, common):
        if (place / ref).is_file():
            revision = _line(place / ref)
            return revision if _REVISION.fullmatch(revision) else None
    return _packed(common / "packed-refs", ref)


def _packed(path: Path, ref: str) -> str | None:
    with open_regular(path) as stream:
        lines = iter(lambda: stream.readline(_MAX_BYTES).decode("utf-8", "replace"), "")
        for line in islice(lines, _MAX_PACKED_LINES):
            revision, _, name = line.rstrip("\n").partition(" ")
            if name == ref and _REVISION.fullmatch(revision):
                return revision
    return None


def _line(path: Path) -> str:
    return read_regular(path, _MAX_BYTES).decode().rstrip("\n")
