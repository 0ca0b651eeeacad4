"""The unfinished database beside its place: locked, and good to go on with after any death.

``OUT.partial`` holds the database as far as it is committed, and one file ``state-N`` for the
transaction N that the database ended with when the state was true. The state is written first;
whichever of its last transactions the database turns out to have, its state is there.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from irv2caffe.atomic import is_partial, replace_folder, write_error
from irv2caffe.data.build.state import DAMAGED, State, read_state, write_state
from irv2caffe.data.lmdb_store import last_transaction
from irv2caffe.data.records.database_files import MANIFEST, is_of_database
from irv2caffe.errors import OutputError, OutputExistsError
from irv2caffe.system import read_json_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK = "lock"
_PLAN = "plan.json"
_STATE = "state-"


class Partial:
    """The folder of an unfinished database, held by this process alone."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint

    def is_complete(self) -> bool:
        """Whether only the renaming is left to do."""
        return read_json_object(self.folder / MANIFEST).get("fingerprint") == self.fingerprint

    def is_of_this_plan(self) -> bool:
        """Whether there is something to go on with."""
        return read_json_object(self.folder / _PLAN).get("fingerprint") == self.fingerprint

    def has_commits(self) -> bool:
        """Whether anything would be lost with the folder."""
        try:
            return last_transaction(self.folder) > 0
        except OutputError:
            return True  # damaged: what it is worth is for the user to say

    def state(self) -> State:
        """Where to go on.

        Raises:
            OutputError: the folder was damaged by someone else.
        """
        transaction = last_transaction(self.folder)
        if transaction == 0 and not self._has_later_states():
            return State()
        path = self.folder / f"{_STATE}{transaction}"
        try:
            return read_state(path)
        except (OSError, *DAMAGED) as error:
            lost = "data.mdb has lost records that were committed"
            why = f"{path.name} cannot be read" if path.exists() else lost
            raise OutputError(
                f"{self.folder} is damaged: {why}", "--no-resume starts over"
            ) from error

    def _has_later_states(self) -> bool:
        """Whether there was a commit once: the second state is written after the first commit."""
        first = {f"{_STATE}new", f"{_STATE}1"}
        return any(path.name not in first for path in self.folder.glob(f"{_STATE}*"))

    def save(self, state: State, transaction: int) -> None:
        """Writes the state that is true once a transaction is committed.

        Raises:
            OutputError: the disk is full or fails.
        """
        try:
            aside = self.folder / f"{_STATE}new"
            with aside.open("wb") as stream:
                write_state(state, stream)
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(self.folder / f"{_STATE}{transaction}")
            _sync_folder(self.folder)
            (self.folder / f"{_STATE}{transaction - 3}").unlink(missing_ok=True)
        except OSError as error:
            raise write_error(self.folder, error) from error

    def finish(self, out: Path) -> None:
        """Clears away what only an unfinished database needs, and renames the folder to ``out``.

        Raises:
            OutputError: the folder cannot be renamed.
        """
        try:
            for path in self.folder.iterdir():
                if _is_of_unfinished(path.name) or is_partial(path.name):
                    path.unlink()
            _sync_folder(self.folder)
            replace_folder(self.folder, out)
            (out / _LOCK).unlink(missing_ok=True)  # of a process that came between the two
            _sync_folder(out.parent)
        except OSError as error:
            raise write_error(out, error) from error

    def clear(self) -> None:
        """Removes what lies in the folder, but for the lock; nothing that others put there.

        The plan goes first, so that nobody goes on with what is left.

        Raises:
            OSError: something cannot be removed.
        """
        (self.folder / _PLAN).unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if _is_ours(path.name) and path.name != _LOCK:
                path.unlink()

    def discard(self) -> None:
        """Removes the folder, if nothing of others lies in it."""
        with suppress(OSError):
            self.clear()
            (self.folder / _LOCK).unlink()
            self.folder.rmdir()


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
    partial = Partial(partial_folder(out), fingerprint)
    with ExitStack() as stack:
        try:
            partial.folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((partial.folder / _LOCK).open("a"))
            _lock(lock, partial.folder)
            is_known = resume and (partial.is_of_this_plan() or partial.is_complete())
            if not is_known:
                _refuse_others(partial, told, may_go=force or not resume)
        except OSError as error:
            with suppress(OSError):
                partial.folder.rmdir()  # where nothing lies in it
            raise write_error(partial.folder, error) from error
        try:
            if not is_known:
                _begin(partial, told)
            yield partial
        except BaseException:
            if not partial.has_commits():
                partial.discard()
            raise


def _lock(lock: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputExistsError(
            f"another process is writing {folder}", "wait for it, or choose another OUT"
        ) from error


def _refuse_others(partial: Partial, told: dict[str, Any], *, may_go: bool) -> None:
    """Refuses to clear away what is not ours, or the work of another plan."""
    folder = partial.folder
    strange = sorted(path.name for path in folder.iterdir() if not _is_ours(path.name))
    if strange:
        raise OutputExistsError(
            f"{folder} is no unfinished database: it holds {strange[0]}",
            "move it away, or choose another OUT",
        )
    if not may_go and partial.has_commits():
        raise OutputExistsError(
            f"{folder} is an unfinished database of other images or options"
            f"{_difference(read_json_object(folder / _PLAN).get('told'), told)}",
            "run its command again to go on, or --no-resume to start over",
        )


def _begin(partial: Partial, told: dict[str, Any]) -> None:
    folder = partial.folder
    text = json.dumps({"fingerprint": partial.fingerprint, "told": told}, indent=2) + "\n"
    try:
        partial.clear()
        aside = folder / f"{_STATE}new"
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(folder / _PLAN)
        _sync_folder(folder)
    except OSError as error:
        raise write_error(folder, error) from error


def _is_of_unfinished(name: str) -> bool:
    """Whether a file is one that only an unfinished database has."""
    return name.startswith(_STATE) or name in {_PLAN, _LOCK}


def _is_ours(name: str) -> bool:
    return _is_of_unfinished(name) or is_of_database(name)


def _difference(before: Any, now: dict[str, Any]) -> str:
    """The options that differ, in a few words."""
    before = before if isinstance(before, dict) else {}
    plain = json.loads(json.dumps(now))
    names = [name for name in plain if before.get(name) != plain[name]]
    return f" ({', '.join(names)} differ)" if names and before else ""


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
