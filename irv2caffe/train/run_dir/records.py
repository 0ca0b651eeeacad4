"""Records of a run: config.json, state.json, and the end of the newest log."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from irv2caffe.log.read.reader import read_lines
from irv2caffe.system import open_own, open_regular, read_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from irv2caffe.log.read.history import Log
    from irv2caffe.train.run_dir.run_dir import RunDir

_LOG_TAIL_BYTES = 1 << 16


def read_config(path: Path) -> dict[str, Any]:
    """The ``config.json`` of a run folder; empty where there is none."""
    return read_json_object(path / "config.json")


def starts_of(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The starts in a ``config.json``, whose contents are not trusted."""
    starts = config.get("starts")
    return [one for one in starts if isinstance(one, dict)] if isinstance(starts, list) else []


def weights_of(config: Mapping[str, Any]) -> list[str]:
    """The models that a run started from, as its ``config.json`` says."""
    names = config.get("weights")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def write_state(run: RunDir, values: Mapping[str, Any]) -> None:
    """Writes ``state.json``; not forced to the disk, and skipped on a full one."""
    aside = run.path / ".state.json.partial"
    try:
        with os.fdopen(open_own(aside, os.O_WRONLY | os.O_TRUNC), "w", encoding="utf-8") as stream:
            stream.write(json.dumps(values, default=str) + "\n")
        aside.replace(run.state)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def last_log(run: RunDir) -> Log:
    """What the end of the last start's log says; empty where there is none."""
    try:
        with open_regular(run.log_of(run.num_starts())) as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    return read_lines(lines)


def is_finished(run: RunDir) -> bool:
    """Whether the last start's log says that the training, and its last test, are complete."""
    log = last_log(run)
    return log.finished and not log.stopped and not log.interrupted
