"""The unfinished database beside its place: locked, and good to go on with after any death.

``OUT.partial`` holds the database as far as it is committed, and one file ``state-N`` for the
transaction N that the database ended with when the state was true. The state is written first;
whichever of the two transactions the database turns out to have, its state is there.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from irv2caffe.atomic import swap_in, unwritable
from irv2caffe.data.depth import Depth
from irv2caffe.data.items import LeftOutError
from irv2caffe.data.lmdb_store import last_transaction
from irv2caffe.data.mean import MeanSums
from irv2caffe.errors import OutputError, OutputExistsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST = "manifest.json"
_LOCK = "lock"
_PLAN = "plan.json"
_STATE = "state-"


@dataclass
class State:
    """What a database holds when it is committed.

    Attributes:
        next_index: the first record that is still to be made.
        num_written: records in it.
        num_bytes: of all records.
        skipped: reasons and how many images were left out for them.
        num_complaints: images that were taken although the decoder complained.
        per_label: records of each label.
        seconds: that it took so far.
        table_bytes: how long the side tables are, by name.
        mean: sums over the records.
        depth: images of 16 bits.
    """

    next_index: int = 0
    num_written: int = 0
    num_bytes: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    num_complaints: int = 0
    per_label: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    table_bytes: dict[str, int] = field(default_factory=dict)
    mean: MeanSums = field(default_factory=MeanSums)
    depth: Depth = field(default_factory=Depth)

    @property
    def num_skipped(self) -> int:
        """Images that were left out."""
        return sum(self.skipped.values())

    def refuse_too_many_skipped(self, most: int | None) -> None:
        """Ends a job that leaves out more images than allowed.

        Args:
            most: that may be left out; None bounds nothing.

        Raises:
            LeftOutError: with the commonest reason.
        """
        if most is not None and self.num_skipped > most:
            reason, count = self.skipped.most_common(1)[0]
            raise LeftOutError(
                f"{self.num_skipped:,} images cannot be taken, most of them ({count:,}) "
                f"because: {reason}",
                "is SOURCE right? --max-skipped with a larger number allows for them",
            )


class Partial:
    """The folder of an unfinished database, held by this process alone."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint

    def is_complete(self) -> bool:
        """Whether only the renaming is left to do."""
        return _read_json(self.folder / MANIFEST).get("fingerprint") == self.fingerprint

    def is_of_this_plan(self) -> bool:
        """Whether there is something to go on with."""
        return _read_json(self.folder / _PLAN).get("fingerprint") == self.fingerprint

    def has_commits(self) -> bool:
        """Whether anything would be lost with the folder."""
        return last_transaction(self.folder) > 0

    def state(self) -> State:
        """Where to go on.

        Raises:
            OutputError: the folder was damaged by someone else.
        """
        transaction = last_transaction(self.folder)
        if transaction == 0:
            return State()
        path = self.folder / f"{_STATE}{transaction}"
        try:
            return _read_state(path)
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise OutputError(
                f"{self.folder} cannot be gone on with: {path.name} is not readable",
                "--no-resume starts over",
            ) from error

    def save(self, state: State, transaction: int) -> None:
        """Writes the state that is true once a transaction is committed.

        Raises:
            OutputError: the disk is full or fails.
        """
        try:
            aside = self.folder / f"{_STATE}new"
            with aside.open("wb") as stream:
                _write_state(state, stream)
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(self.folder / f"{_STATE}{transaction}")
            _sync_folder(self.folder)
            (self.folder / f"{_STATE}{transaction - 2}").unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def finish(self, out: Path) -> None:
        """Clears away what only an unfinished database needs, and renames the folder to ``out``.

        Raises:
            OutputError: the folder cannot be renamed.
        """
        try:
            for path in self.folder.iterdir():
                if path.name.startswith(_STATE) or path.name in {_PLAN, _LOCK}:
                    path.unlink()
            _sync_folder(self.folder)
            swap_in(self.folder, out)
            _sync_folder(out.parent)
        except OSError as error:
            raise unwritable(out, error) from error

    def discard(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def partial_folder(out: Path) -> Path:
    """Where the unfinished database of an output lies."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def open_partial(
    out: Path, fingerprint: str, told: dict[str, Any], *, force: bool, resume: bool
) -> Iterator[Partial]:
    """Takes hold of the unfinished database of an output, an existing one or a new one.

    Args:
        out: where the database will stand.
        fingerprint: of the plan.
        told: what the plan was made of, to say what differs.
        force: an unfinished database of another plan may go.
        resume: go on with one of the same plan.

    Raises:
        OutputExistsError: another process is at it, or it belongs to another plan.
        OutputError: the folder cannot be written.
    """
    folder = partial_folder(out)
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / _LOCK).open("a"))
            _lock(lock, folder)
            partial = Partial(folder, fingerprint)
            _settle(partial, told, force=force, resume=resume)
        except OSError as error:
            raise unwritable(folder, error) from error
        yield partial


def _lock(lock: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputExistsError(
            f"another process is writing {folder}", "wait for it, or choose another OUT"
        ) from error


def _settle(partial: Partial, told: dict[str, Any], *, force: bool, resume: bool) -> None:
    """Keeps what is there if it is of this plan, refuses what is of another, or clears it away."""
    folder = partial.folder
    others = [path for path in folder.iterdir() if path.name != _LOCK]
    if resume and (partial.is_of_this_plan() or partial.is_complete()):
        return
    plan = _read_json(folder / _PLAN)
    if others and not plan and not (folder / "data.mdb").exists():
        raise OutputExistsError(
            f"{folder} exists and is no unfinished database", "move it away, or choose another OUT"
        )
    if others and resume and not force:
        raise OutputExistsError(
            f"{folder} is an unfinished database of other images or options"
            f"{_difference(plan.get('told'), told)}",
            "run its command again to go on, or --no-resume to start over",
        )
    for path in others:
        path.unlink() if not path.is_dir() or path.is_symlink() else shutil.rmtree(path)
    text = json.dumps({"fingerprint": partial.fingerprint, "told": told}, indent=2) + "\n"
    aside = folder / f"{_STATE}new"
    with aside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(folder / _PLAN)
    _sync_folder(folder)


def _difference(before: Any, now: dict[str, Any]) -> str:
    """The options that differ, in a few words."""
    before = before if isinstance(before, dict) else {}
    plain = json.loads(json.dumps(now))
    names = [name for name in plain if before.get(name) != plain[name]]
    return f" ({', '.join(names)} differ)" if names and before else ""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_state(state: State, stream: IO[bytes]) -> None:
    """A line of JSON, then the sum of the images."""
    image = state.mean.image
    mean = {**vars(state.mean), "image": None if image is None else list(image.shape)}
    values = {**vars(state), "mean": mean, "depth": vars(state.depth)}
    stream.write(json.dumps(values).encode() + b"\n")
    if image is not None:
        stream.write(np.ascontiguousarray(image, "<f8").data)


def _read_state(path: Path) -> State:
    with path.open("rb") as stream:
        values = json.loads(stream.readline())
        rest = stream.read()
    mean = values["mean"]
    if mean["image"] is not None:
        mean["image"] = np.frombuffer(rest, "<f8").reshape(mean["image"]).copy()
    mean["shape"] = tuple(mean["shape"]) if mean["shape"] is not None else None
    values["mean"] = MeanSums(**mean)
    values["depth"] = Depth(**values.get("depth", {}))
    values["skipped"] = Counter(values["skipped"])
    values["per_label"] = Counter({int(key): count for key, count in values["per_label"].items()})
    return State(**values)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
