"""Who holds the lock of a run folder on this machine, as the kernel says it.

What a file in the folder says of a process proves nothing: the folder may be somebody else's, and
numbers of processes come again. Open files and command lines do.
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
    """A process that keeps a lock.

    Attributes:
        pid: its number.
        parent: the number of its parent.
        session: that it is in.
        argv: its command line.
        output: device and inode of what it writes its output to, or None.
    """

    pid: int
    parent: int
    session: int
    argv: tuple[str, ...]
    output: tuple[int, int] | None

    def text(self) -> str:
        """For people."""
        command = " ".join(self.argv)
        shown = command if len(command) <= _SHOWN_CHARS else f"{command[:_SHOWN_CHARS]}..."
        return f"process {self.pid} ({shown})" if shown else f"process {self.pid}"


def holders(run: RunDir) -> list[Holder]:
    """The other processes of this machine, as far as we may look, that hold a run's lock."""
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
    """Whether a process that holds the lock is a Caffe, or a docker client, that trains this run.

    Its command line names the run's solver, or it writes into a log of the run.
    """
    if "-solver" not in holder.argv[:-1]:
        return False
    named = holder.argv[holder.argv.index("-solver") + 1]
    if named in {str(run.solver.absolute()), str(run.solver.resolve())}:
        return True
    logs = {_identity(run.log_of(number)) for number in run.starts()}
    return holder.output is not None and holder.output in logs


class Grip:
    """A process that cannot be mistaken for another one: its number is not given away again."""

    def __init__(self, holder: Holder, run: RunDir) -> None:
        """Takes hold of a process that holds the lock of a run.

        Raises:
            ProcessLookupError: it is gone, or is another one by now.
        """
        self._handle = os.pidfd_open(holder.pid)
        wanted = _identity(run.lock)
        if wanted is None or not _has_lock(holder.pid, wanted) or _holder(holder.pid) != holder:
            os.close(self._handle)
            raise ProcessLookupError
        self._poll = select.poll()
        self._poll.register(self._handle, select.POLLIN)

    def has_ended(self, wait_s: float) -> bool:
        """Whether it ended, now or within some time."""
        return bool(self._poll.poll(1000 * wait_s))

    def kill(self) -> None:
        """Ends it at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def close(self) -> None:
        """Lets go of it."""
        os.close(self._handle)


@contextlib.contextmanager
def grip(holder: Holder, run: RunDir) -> Iterator[Grip | None]:
    """A process that holds the lock of a run; None where it does not any more."""
    try:
        held = Grip(holder, run)
    except OSError:  # gone, or a system without such handles
        yield None
        return
    try:
        yield held
    finally:
        held.close()


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
    """Whether a process has the file open, and the lock through it."""
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
