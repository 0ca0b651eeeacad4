"""Waits for a Caffe whose trainer was killed, and ends it if it hangs."""

from __future__ import annotations

import os
import platform
import time
from typing import TYPE_CHECKING

from irv2caffe.caffe.docker import container_command, kill_container, remove_container
from irv2caffe.train.run_dir.lock import (
    Holder,
    holders,
    is_caffe_of,
    is_locked,
    open_process,
    read_owner,
)
from irv2caffe.train.run_dir.run_dir import last_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.train.run_dir.run_dir import RunDir

# The kernel has sent it a SIGINT: it finishes its iteration and writes a snapshot.
_ORPHAN_S = 600.0
_HANG_S = 10.0
_POLL_S = 0.1


def wait_for_orphan(run: RunDir, say: Callable[[str], None]) -> None:
    """Waits until a Caffe whose trainer was killed has written its snapshot and ended.

    One that does not end is killed, if the kernel shows that it is a Caffe of this run; any other
    holder of the lock is left alone.
    """
    owner = read_owner(run)
    if owner is None:
        return
    orphan = _orphan(run) if is_locked(run) else None
    if orphan is not None:
        say(f"a Caffe whose trainer was killed is still running (process {orphan.pid})")
        if not _ends_by_itself(run, orphan):
            say("it did not end, and was killed")
            _kill(run, orphan)
    if owner.container and owner.host == platform.node():
        _remove_container(run, owner.container)
    for _ in range(50):  # the kernel frees the lock with a short delay
        if orphan is None or not is_locked(run):
            return
        time.sleep(_POLL_S)


def _orphan(run: RunDir) -> Holder | None:
    """The Caffe of a run whose trainer has ended, or None."""
    found = holders(run)
    pids = {holder.pid for holder in found} | {os.getpid()}
    for holder in found:
        if is_caffe_of(holder, run) and holder.parent not in pids:
            return holder
    return None


def _ends_by_itself(run: RunDir, orphan: Holder) -> bool:
    with open_process(orphan, run) as process:
        if process is None:
            return True
        deadline = time.monotonic() + _ORPHAN_S
        stopped_at: float | None = None
        while time.monotonic() < deadline:
            if process.has_ended(_POLL_S):
                return True
            if stopped_at is None and last_log(run).stopped:
                stopped_at = time.monotonic()
            if stopped_at is not None and time.monotonic() > stopped_at + _HANG_S:
                break  # with several GPUs it may hang after its snapshot
    return False


def _kill(run: RunDir, orphan: Holder) -> None:
    """Kills a Caffe, and the holders of the lock that it started in its session."""
    if "--name" in orphan.argv[:-1]:  # a docker client, which does not forward SIGKILL
        kill_container(orphan.argv[orphan.argv.index("--name") + 1])
    for holder in holders(run):
        if holder == orphan or holder.session == orphan.session == orphan.pid:
            with open_process(holder, run) as process:
                if process is not None:
                    process.kill()


def _remove_container(run: RunDir, container: str) -> None:
    """Removes the container that the lock file names, if it trains this run."""
    if str(run.solver.absolute()) in container_command(container):
        remove_container(container)
