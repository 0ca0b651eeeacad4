"""The best snapshot of a run: ``snapshots/best.caffemodel`` and ``.solverstate``.

They are hard links to the files of a snapshot, which take no space, or copies where a file system
has no links. ``best.json`` says which snapshot it is and what its test gave. A run folder may come
from anybody: nothing in it makes the best snapshot a file outside of the folder.
"""

from __future__ import annotations

import json
import math
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import atomic_file, write_error, write_text
from irv2caffe.errors import FormatError, InputError, MissingInputError
from irv2caffe.proto.snapshot_headers import read_state_header
from irv2caffe.system import read_json_object
from irv2caffe.train.run_dir import checksums
from irv2caffe.train.run_dir.folders import copy_file
from irv2caffe.train.run_dir.snapshot_name import parse_name
from irv2caffe.train.run_dir.snapshots import Pair

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MAX_ITERATION = 10**18
_PERCENT = {"top1_error": "top-1 error", "top5_error": "top-5 error"}


@dataclass(frozen=True)
class BestSnapshot:
    """The snapshot of the best test of a run.

    Attributes:
        pair: its two files, and the iteration of its weights.
        tested_at: iteration of the test; where it is not that of the snapshot, Caffe wrote the
            snapshot on request a few iterations after the test.
        metric: what is best: ``top1_error``, ``top5_error`` (percent), ``loss`` or an output.
        better: ``up`` or ``down``: higher or lower values are better.
        value: of the metric in that test.
        test: the errors, loss and outputs of that test, as in ``metrics.jsonl``.
        snapshot: name of the snapshot's files without their suffix.
        is_averaged: the test was one of averaged weights (``--ema``).
    """

    pair: Pair
    tested_at: int
    metric: str
    better: str
    value: float
    test: Mapping[str, Any]
    snapshot: str
    is_averaged: bool = False

    @property
    def iteration(self) -> int:
        """Iteration of the weights."""
        return self.pair.iteration

    @property
    def weights(self) -> Path:
        """The model that was tested: with ``--ema`` that of the averaged weights."""
        return self.pair.averaged if self.is_averaged else self.pair.model

    def text(self) -> str:
        """Metric, value and iterations, for the user."""
        name = _PERCENT.get(self.metric)
        value = f"{name} {self.value:.2f} %" if name else f"{self.metric} {self.value:.4g}"
        if self.metric == "loss":
            value = f"test loss {self.value:.4g}"
        if self.tested_at == self.iteration:
            return f"{value}, iteration {self.iteration:,}"
        return f"{value} in the test at iteration {self.tested_at:,}, saved at {self.iteration:,}"

    def as_dict(self) -> dict[str, Any]:
        """The values for JSON."""
        return {
            "iteration": self.iteration,
            "tested_at": self.tested_at,
            "metric": self.metric,
            "better": self.better,
            "value": self.value,
            "model": str(self.weights),
            "state": str(self.pair.state),
            "text": self.text(),
        }


def _pair(snapshots: Path, iteration: int) -> Pair:
    return Pair(iteration, snapshots / "best.solverstate", snapshots / "best.caffemodel")


def _record(snapshots: Path) -> Path:
    return snapshots / "best.json"


def best_snapshot(run: Path) -> BestSnapshot | None:
    """The best snapshot of a run folder; None if there is none, or if it is not to be trusted.

    Only its record is checked, and that its files are regular files of the folder itself.

    Args:
        run: the run folder.
    """
    return read_best(run / "snapshots")


def read_best(snapshots: Path) -> BestSnapshot | None:
    """Like :func:`best_snapshot`, for the folder of the snapshots."""
    if snapshots.is_symlink() or not _is_regular(_record(snapshots)):
        return None
    best = _parsed(snapshots, read_json_object(_record(snapshots)))
    return best if best is not None and _is_regular(best.weights) else None


def _parsed(snapshots: Path, record: dict[str, Any]) -> BestSnapshot | None:
    """The contents of ``best.json``, which are not trusted."""
    is_valid = (
        all(_is_iteration(record.get(name)) for name in ("iteration", "tested_at"))
        and _is_number(record.get("value"))
        and all(isinstance(record.get(name), str) for name in ("metric", "snapshot"))
        and record.get("better") in ("up", "down")
        and isinstance(record.get("test"), dict)
        and isinstance(record.get("averaged"), bool)
    )
    if not is_valid:
        return None
    return BestSnapshot(
        _pair(snapshots, record["iteration"]),
        record["tested_at"],
        record["metric"],
        record["better"],
        float(record["value"]),
        record["test"],
        record["snapshot"],
        record["averaged"],
    )


def _is_iteration(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_ITERATION


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < math.inf


def _is_regular(path: Path) -> bool:
    """Whether a path is a regular file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def source_of(best: BestSnapshot) -> Pair | None:
    """The snapshot whose files the best one links to, if its name is one of a snapshot."""
    folder = best.pair.state.parent
    state = folder / f"{best.snapshot}.solverstate"
    name = parse_name(state.name)
    if os.sep in best.snapshot or name is None or name.iteration != best.iteration:
        return None
    return Pair(best.iteration, state, state.with_suffix(".caffemodel"))


def save_best(
    source: Pair, test: Mapping[str, Any], metric: str, value: float, better: str
) -> BestSnapshot:
    """Makes a verified snapshot the best one of its folder.

    The record is written last, so that after a crash in between :func:`repair` finds it.

    Args:
        source: the snapshot.
        test: a row of ``metrics.jsonl``: the test of these weights.
        metric: the key of ``test`` or of its outputs that is best.
        value: of the metric.
        better: ``up`` or ``down``.

    Raises:
        OutputError: it cannot be written.
        InputError: a file of it is missing or a link.
    """
    folder = source.state.parent
    is_averaged = _is_regular(source.averaged)
    known = {"tested_at": test["iteration"], "metric": metric, "better": better, "value": value}
    figures = {name: test.get(name) for name in ("top1_error", "top5_error", "loss")}
    record = {
        "iteration": source.iteration,
        **known,
        "snapshot": source.state.stem,
        "averaged": is_averaged,
        "test": _finite({**figures, "outputs": _finite(test["outputs"])}),
    }
    best = _parsed(folder, record)
    assert best is not None
    _place(source, best.pair, averaged=is_averaged)
    write_text(_record(folder), json.dumps(record, indent=2) + "\n")
    return best


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without NaN and infinity, which JSON does not know."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _place(source: Pair, target: Pair, *, averaged: bool) -> None:
    names = {target.state: source.state, target.model: source.model}
    if averaged:
        names[target.averaged] = source.averaged
    for file in names.values():
        if not _is_regular(file):
            raise InputError(f"{file}: missing, or a link")
    for path, file in names.items():
        _link(file, path)
    if not averaged:
        target.averaged.unlink(missing_ok=True)
    checksums.record_same({path.name: file for path, file in names.items()})


def _link(source: Path, target: Path) -> None:
    """Makes a hard link to a file, or a copy of it; the target is replaced at once."""
    with atomic_file(target) as aside:
        aside.unlink()
        try:
            os.link(source, aside, follow_symlinks=False)
        except OSError:
            copy_file(source, aside)


def repair(snapshots: Path) -> BestSnapshot | None:
    """The best snapshot of earlier starts, made complete if a trainer was killed while writing it.

    Raises:
        OutputError: it cannot be written.
    """
    best = read_best(snapshots)
    if best is None:
        return None
    try:
        if read_state_header(best.pair.state).iteration == best.iteration:
            return best
    except (FormatError, MissingInputError):
        pass
    source = source_of(best)
    if source is None:
        return None
    try:
        _place(source, best.pair, averaged=best.is_averaged)
    except InputError:
        return None
    return best


def detach(best: BestSnapshot, first: int) -> None:
    """Copies files that Caffe is about to write over: those of the iterations from ``first`` on.

    Caffe writes into the file that is there, which a hard link shares.

    Raises:
        OutputError: they cannot be copied.
    """
    source = source_of(best)
    if source is None or best.iteration < first:
        return
    pairs = ((source.state, best.pair.state), (source.model, best.pair.model))
    for file, path in (*pairs, (source.averaged, best.pair.averaged)):
        try:
            if _is_regular(file) and _is_regular(path) and path.samefile(file):
                copy_file(file, path)
        except OSError as error:
            raise write_error(path, error) from error
