"""The processes of this machine that hold the lock of a run folder, according to the kernel.

The process number in the lock file proves nothing: the folder may come from somebody else, and
numbers are reused. Open files and command lines are evidence.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.system import read_regular, stat_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.train.run_dir.run_dir import RunDir

_PROC = Path("/proc")
_MAX_PROC_BYTES = 1 << 20
_SHOWN_CHARS = 60


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
    """A running process; unlike its number, the handle cannot come to mean another process."""

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


@contextlib.contextmanager
def open_process(holder: Holder, run: RunDir) -> Iterator[ProcessHandle | None]:
    """A handle of a process that holds the lock of a run; None where it does not any more."""
    try:
        pidfd = os.pidfd_open(holder.pid)
    except OSError:  # it has ended, or the kernel has no such handles
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
