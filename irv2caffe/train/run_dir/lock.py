"""Locks a run folder, and finds the processes that hold the lock.

The process number in the lock file is not trusted: the folder may come from elsewhere, and numbers
are reused. Holders are identified by the open files and command lines that the kernel shows.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import select
import signal
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING

from irv2caffe.atomic import write_error
from irv2caffe.errors import InputError
from irv2caffe.system import open_for_writing, open_regular, read_regular, stat_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.train.run_dir.run_dir import RunDir

_PROC = Path("/proc")
_MAX_PROC_BYTES = 1 << 20
_SHOWN_CHARS = 60
_MAX_LOCK_BYTES = 1 << 16


@dataclass(frozen=True)
class Owner:
    """The trainer that holds a run folder, and its Caffe; ``began`` tells reused numbers apart."""

    host: str
    pid: int
    began: str
    child_pid: int = 0
    child_began: str = ""
    container: str = ""


_EMPTY_OWNER = Owner("", 0, "")


@contextmanager
def locked(run: RunDir) -> Iterator[IO[str]]:
    """Holds the run folder; the kernel frees the lock when its processes end.

    Yields the open lock file, which Caffe inherits: while a Caffe whose trainer was killed still
    runs, no other trainer starts in the same folder.

    Raises:
        InputError: another trainer is using it.
    """
    with _open_lock(run) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _locked_error(run) from error
        except OSError as error:
            raise write_error(run.path, error) from error
        write_owner(handle, Owner(platform.node(), os.getpid(), start_time(os.getpid())))
        yield handle
        handle.truncate(0)


def _locked_error(run: RunDir) -> InputError:
    """The error that names the trainer, or a process left behind by an earlier Caffe."""
    owner, found = read_owner(run), holders(run)
    if owner is not None and (not found or any(one.pid == owner.pid for one in found)):
        who = f", process {owner.pid} on {owner.host}"
    elif found and not any(is_caffe_of(one, run) for one in found):
        return InputError(
            f"{run.path} is locked by {'; '.join(one.text() for one in found[:3])}, started by an "
            "earlier Caffe of this run",
            f"end it if nothing needs it: kill {' '.join(str(one.pid) for one in found[:3])}",
        )
    else:
        who = "".join(f", {one.text()}" for one in found[:3])
    return InputError(
        f"another training is running in {run.path}{who}",
        "see irv2caffe train --status RUN; stop it with --stop RUN",
    )


def _open_lock(run: RunDir) -> IO[str]:
    try:
        return os.fdopen(
            open_for_writing(run.lock, os.O_RDWR | os.O_APPEND), "r+", encoding="utf-8"
        )
    except OSError as error:
        raise write_error(run.lock, error) from error


def write_owner(handle: IO[str], owner: Owner) -> None:
    """Writes the holder into the lock file, unless the disk is full."""
    with contextlib.suppress(OSError):
        handle.seek(0)
        handle.truncate(0)
        handle.write(json.dumps(asdict(owner)) + "\n")
        handle.flush()


def read_owner(run: RunDir) -> Owner | None:
    """The holder that the lock file names, or None; its contents are not trusted."""
    try:
        values = json.loads(read_regular(run.lock, _MAX_LOCK_BYTES))
        owner = Owner(**values)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    kinds = {field.name: type(getattr(_EMPTY_OWNER, field.name)) for field in fields(Owner)}
    return owner if all(type(values.get(n, k())) is k for n, k in kinds.items()) else None


def is_locked(run: RunDir) -> bool:
    """Whether a trainer or its Caffe is running in a run folder."""
    try:
        with open_regular(run.lock) as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def start_time(pid: int) -> str:
    """When a process started, in clock ticks since the boot; empty without such a process."""
    fields = stat_fields(Path(f"/proc/{pid}"))
    return fields[19] if fields else ""


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock.

    Attributes:
        pid: process number.
        parent: process number of its parent.
        session: session number.
        argv: its command line.
        output: device and inode of its standard output, or None.
    """

    pid: int
    parent: int
    session: int
    argv: tuple[str, ...]
    output: tuple[int, int] | None

    def text(self) -> str:
        """Number and command, for messages."""
        command = " ".join(self.argv)
        shown = command if len(command) <= _SHOWN_CHARS else f"{command[:_SHOWN_CHARS]}..."
        return f"process {self.pid} ({shown})" if shown else f"process {self.pid}"


def holders(run: RunDir) -> list[Holder]:
    """The other processes that hold a run's lock, as far as this user may see them."""
    wanted = _identity(run.lock)
    if wanted is None:
        return []
    found = []
    for folder in _PROC.iterdir() if _PROC.is_dir() else ():
        pid = int(folder.name) if folder.name.isdecimal() else 0
        if pid not in {0, os.getpid()} and _has_lock(pid, wanted):
            holder = _holder(pid)
            if holder is not None:
                found.append(holder)
    return found


def is_caffe_of(holder: Holder, run: RunDir) -> bool:
    """Whether a process is a Caffe, or a docker client, that trains this run.

    Its command line names the run's solver, or its output is a log of the run.
    """
    if "-solver" not in holder.argv[:-1]:
        return False
    named = holder.argv[holder.argv.index("-solver") + 1]
    if named in {str(run.solver.absolute()), str(run.solver.resolve())}:
        return True
    logs = {_identity(run.log_of(number)) for number in run.starts()}
    return holder.output is not None and holder.output in logs


class ProcessHandle:
    """A handle to a running process; unlike a process number it is never reused."""

    def __init__(self, pidfd: int) -> None:
        self._pidfd = pidfd
        self._poll = select.poll()
        self._poll.register(pidfd, select.POLLIN)

    def has_ended(self, timeout_s: float) -> bool:
        """Whether the process ends within a time."""
        return bool(self._poll.poll(1000 * timeout_s))

    def kill(self) -> None:
        """Sends SIGKILL."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


@contextmanager
def open_process(holder: Holder, run: RunDir) -> Iterator[ProcessHandle | None]:
    """A handle to a process that holds the lock of a run; None if it no longer does."""
    try:
        pidfd = os.pidfd_open(holder.pid)
    except OSError:  # it has ended, or the kernel has no pidfds
        yield None
        return
    try:
        wanted = _identity(run.lock)
        is_same = wanted is not None and _has_lock(holder.pid, wanted)
        yield ProcessHandle(pidfd) if is_same and _holder(holder.pid) == holder else None
    finally:
        os.close(pidfd)


def _holder(pid: int) -> Holder | None:
    folder = _PROC / str(pid)
    fields = stat_fields(folder)
    try:
        argv = read_regular(folder / "cmdline", _MAX_PROC_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    if not fields or fields[0] in {"Z", "X"}:
        return None
    _, parent, _, session, *_ = fields
    output = _identity(folder / "fd/1")
    return Holder(pid, int(parent), int(session), tuple(argv.rstrip("\0").split("\0")), output)


def _has_lock(pid: int, wanted: tuple[int, int]) -> bool:
    """Whether a process has the file open and holds a lock on it."""
    folder = _PROC / str(pid)
    try:
        opened = list((folder / "fd").iterdir())
    except OSError:
        return False  # gone, or another user's
    for one in opened:
        if _identity(one) == wanted:
            with contextlib.suppress(OSError):
                if b"FLOCK" in read_regular(folder / "fdinfo" / one.name, _MAX_PROC_BYTES):
                    return True
    return False


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
