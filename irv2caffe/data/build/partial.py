"""The unfinished database ``OUT.partial``: locked, and complete enough to resume after a crash.

It holds the committed records, and one file ``state-N`` for each of the last transactions N. The
state is written before its transaction is committed, so that whichever transaction turns out to be
the last one on the disk, its state is there.
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
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LOCK = "lock"
_PLAN = "plan.json"
_STATE = "state-"


class Partial:
    """The folder of an unfinished database, locked by this process."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint

    def is_complete(self) -> bool:
        """Whether all that is left is to rename it."""
        return read_json_object(self.folder / MANIFEST).get("fingerprint") == self.fingerprint

    def is_of_this_plan(self) -> bool:
        """Whether it was begun with the same plan."""
        return read_json_object(self.folder / _PLAN).get("fingerprint") == self.fingerprint

    def has_commits(self) -> bool:
        """Whether records are committed, which would be lost with the folder."""
        try:
            return last_transaction(self.folder) > 0
        except OutputError:
            return True  # damaged: the user decides what to do with it

    def state(self) -> State:
        """The state to resume from.

        Raises:
            OutputError: the folder is damaged.
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
        """Whether there ever was a commit: the second state is written after the first commit."""
        first = {f"{_STATE}new", f"{_STATE}1"}
        return any(path.name not in first for path in self.folder.glob(f"{_STATE}*"))

    def save(self, state: State, transaction: int) -> None:
        """Stores the state for a transaction that is about to be committed.

        Raises:
            OutputError: the disk is full or fails.
        """
        try:
            _write_synced(
                self.folder / f"{_STATE}{transaction}", lambda stream: write_state(state, stream)
            )
            (self.folder / f"{_STATE}{transaction - 3}").unlink(missing_ok=True)
        except OSError as error:
            raise write_error(self.folder, error) from error

    def finish(self, out: Path) -> None:
        """Removes the files of an unfinished database, and renames the folder to ``out``.

        Raises:
            OutputError: the folder cannot be renamed.
        """
        try:
            for path in self.folder.iterdir():
                if _is_of_unfinished(path.name) or is_partial(path.name):
                    path.unlink()
            _sync_folder(self.folder)
            replace_folder(self.folder, out)
            (out / _LOCK).unlink(missing_ok=True)  # of a process that started in between
            _sync_folder(out.parent)
        except OSError as error:
            raise write_error(out, error) from error

    def clear(self) -> None:
        """Removes the files of make-lmdb from the folder, except the lock.

        The plan is removed first, so that nothing resumes from the rest.

        Raises:
            OSError: something cannot be removed.
        """
        (self.folder / _PLAN).unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if _is_ours(path.name) and path.name != _LOCK:
                path.unlink()

    def discard(self) -> None:
        """Removes the folder, unless it holds other files."""
        with suppress(OSError):
            self.clear()
            (self.folder / _LOCK).unlink()
            self.folder.rmdir()


def partial_folder(out: Path) -> Path:
    """The folder of the unfinished database of an output."""
    return out.with_name(f"{out.name}.partial")


def check_partial(
    out: Path, fingerprint: str, inputs: dict[str, Any], *, force: bool, resume: bool
) -> None:
    """Refuses, before anything is built, what :func:`open_partial` would refuse of another plan.

    Raises:
        OutputExistsError: the unfinished database of the output belongs to another plan.
    """
    partial = Partial(partial_folder(out), fingerprint)
    is_resumed = resume and (partial.is_of_this_plan() or partial.is_complete())
    if partial.folder.is_dir() and not is_resumed:
        _check_replaceable(partial, inputs, may_remove=force or not resume)


@contextmanager
def open_partial(
    out: Path, fingerprint: str, inputs: dict[str, Any], *, force: bool, resume: bool
) -> Iterator[Partial]:
    """Opens and locks the unfinished database of an output, or begins a new one.

    Args:
        out: path of the output.
        fingerprint: of the plan.
        inputs: source and options of the plan, to name those that differ.
        force: an unfinished database of another plan may be removed.
        resume: continue one of the same plan.

    Raises:
        OutputExistsError: another process has locked it, or it belongs to another plan.
        OutputError: the folder cannot be written.
    """
    partial = Partial(partial_folder(out), fingerprint)
    with ExitStack() as stack:
        try:
            partial.folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((partial.folder / _LOCK).open("a"))
            _lock(lock, partial.folder)
            is_resumed = resume and (partial.is_of_this_plan() or partial.is_complete())
            if not is_resumed:
                _check_replaceable(partial, inputs, may_remove=force or not resume)
        except OSError as error:
            with suppress(OSError):
                partial.folder.rmdir()  # if it is empty
            raise write_error(partial.folder, error) from error
        try:
            if not is_resumed:
                _begin(partial, inputs)
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


def _check_replaceable(partial: Partial, inputs: dict[str, Any], *, may_remove: bool) -> None:
    """Refuses to remove files of other programs, or the work of another plan."""
    folder = partial.folder
    others = sorted(path.name for path in folder.iterdir() if not _is_ours(path.name))
    if others:
        raise OutputExistsError(
            f"{folder} is no unfinished database: it holds {others[0]}",
            "move it away, or choose another OUT",
        )
    if not may_remove and partial.has_commits():
        raise OutputExistsError(
            f"{folder} is an unfinished database of other images or options"
            f"{_difference(read_json_object(folder / _PLAN).get('inputs'), inputs)}",
            "run its command again to go on, or --no-resume to start over",
        )


def _begin(partial: Partial, inputs: dict[str, Any]) -> None:
    folder = partial.folder
    text = json.dumps({"fingerprint": partial.fingerprint, "inputs": inputs}, indent=2) + "\n"
    try:
        partial.clear()
        _write_synced(folder / _PLAN, lambda stream: stream.write(text.encode()))
    except OSError as error:
        raise write_error(folder, error) from error


def _write_synced(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replaces a file in one step that survives a power cut."""
    aside = path.with_name(f"{_STATE}new")
    with aside.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)
    _sync_folder(path.parent)


def _is_of_unfinished(name: str) -> bool:
    """Whether only an unfinished database has a file of this name."""
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
