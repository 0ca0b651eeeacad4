"""The lock of a run folder, which lets one trainer work in it at a time."""

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
    """The trainer that holds a run folder, and its Caffe; ``began`` tells reused numbers apart."""

    host: str
    pid: int
    began: str
    child_pid: int = 0
    child_began: str = ""
    container: str = ""


_NOBODY = Owner("", 0, "")


@contextmanager
def locked(run: RunDir) -> Iterator[IO[str]]:
    """Holds the run folder; the kernel frees the lock when its processes end.

    Yields the open lock file, which Caffe inherits: as long as a Caffe runs whose trainer was
    killed, no other one starts in the same folder.

    Raises:
        InputError: another trainer works in it.
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
    """The error that names the trainer, or the process that a Caffe of an earlier one left."""
    owner, found = read_owner(run), holders(run)
    if owner is not None and (not found or any(one.pid == owner.pid for one in found)):
        who = f", process {owner.pid} on {owner.host}"
    elif found and not any(is_caffe_of(one, run) for one in found):
        return InputError(
            f"{run.path} is kept locked by {'; '.join(one.text() for one in found[:3])}, which a "
            "Caffe of it left behind",
            f"end it, once you know what it is: kill {' '.join(str(one.pid) for one in found[:3])}",
        )
    else:
        who = "".join(f", {one.text()}" for one in found[:3])
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
    kinds = {field.name: type(getattr(_NOBODY, field.name)) for field in fields(Owner)}
    return owner if all(type(values.get(n, k())) is k for n, k in kinds.items()) else None


def is_locked(run: RunDir) -> bool:
    """Whether a trainer or its Caffe works in a run folder now."""
    try:
        with open_regular(run.lock) as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def start_time(pid: int) -> str:
    """When a process started, in clock ticks since the boot; empty where there is none."""
    fields = stat_fields(Path(f"/proc/{pid}"))
    return fields[19] if fields else ""
