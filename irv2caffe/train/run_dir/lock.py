"""The lock of a run folder: one trainer at a time, known by its process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING

from irv2caffe.atomic import write_error
from irv2caffe.errors import InputError
from irv2caffe.system import open_for_writing, open_regular, read_regular, stat_fields
from irv2caffe.train.run_dir.holders import holders, is_caffe_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.train.run_dir.run_dir import RunDir

_MAX_LOCK_BYTES = 1 << 16


@dataclass(frozen=True)
class Owner:
    """Who holds a run folder: processes are known by their number and the time they began."""

    host: str
    pid: int
    began: str
    child_pid: int = 0
    child_began: str = ""
    container: str = ""


_NOBODY = Owner("", 0, "")


@contextmanager
def locked(run: RunDir) -> Iterator[IO[str]]:
    """Holds the run folder; the lock of processes that died is free again by itself.

    Yields the open lock, for the child to inherit: as long as a Caffe lives whose trainer was
    killed, no other Caffe starts in the same folder.

    Raises:
        InputError: another trainer works in it.
    """
    with _open_lock(run) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _held(run) from error
        except OSError as error:
            raise write_error(run.path, error) from error
        write_owner(handle, Owner(platform.node(), os.getpid(), began(os.getpid())))
        yield handle
        handle.truncate(0)


def _held(run: RunDir) -> InputError:
    """Who keeps others out: a trainer, or what a Caffe of an earlier one has left behind."""
    owner = read_owner(run)
    there = holders(run)
    left = [holder for holder in there if not is_caffe_of(holder, run)]
    trainer = owner is not None and (not there or any(one.pid == owner.pid for one in there))
    if owner is not None and trainer:
        who = f", process {owner.pid} on {owner.host}"
    elif len(left) == len(there) > 0:
        return InputError(
            f"{run.path} is kept locked by {'; '.join(one.text() for one in left[:3])}, which a "
            "Caffe of it left behind",
            f"end it, once you know what it is: kill {' '.join(str(one.pid) for one in left[:3])}",
        )
    else:
        who = "".join(f", {one.text()}" for one in there[:3])
    return InputError(
        f"another training works in {run.path}{who}",
        "irv2caffe train --status RUN shows it, --stop RUN ends it",
    )


def _open_lock(run: RunDir) -> IO[str]:
    try:
        return os.fdopen(
            open_for_writing(run.lock, os.O_RDWR | os.O_APPEND), "r+", encoding="utf-8"
        )
    except OSError as error:
        raise write_error(run.lock, error) from error


def write_owner(handle: IO[str], owner: Owner) -> None:
    """Says in the lock who holds it; on a full disk it stays unsaid."""
    with contextlib.suppress(OSError):
        handle.seek(0)
        handle.truncate(0)
        handle.write(json.dumps(asdict(owner)) + "\n")
        handle.flush()


def read_owner(run: RunDir) -> Owner | None:
    """Who holds or held a run folder, as far as the lock says it."""
    try:
        values = json.loads(read_regular(run.lock, _MAX_LOCK_BYTES))
        owner = Owner(**values)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    kinds = {field.name: type(getattr(_NOBODY, field.name)) for field in fields(Owner)}
    return owner if all(type(values.get(n, k())) is k for n, k in kinds.items()) else None


def is_locked(run: RunDir) -> bool:
    """Whether somebody works in a run folder now."""
    try:
        with open_regular(run.lock) as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def began(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty where there is none.

    A number alone may belong to another process by now.
    """
    fields = stat_fields(Path(f"/proc/{pid}"))
    return fields[19] if fields else ""
