"""A Caffe whose trainer was killed: its snapshot is waited for, then it is ended."""

from __future__ import annotations

import os
import platform
import time
from typing import TYPE_CHECKING

from irv2caffe.caffe.docker import container_command, kill_container, remove_container
from irv2caffe.train.run_dir.holders import Holder, grip, holders, is_caffe_of
from irv2caffe.train.run_dir.lock import is_locked, read_owner
from irv2caffe.train.run_dir.run_dir import last_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.train.run_dir.run_dir import RunDir

# Caffe whose trainer was killed has been sent a SIGINT: it finishes its iteration and snapshot.
_ORPHAN_S = 600.0
_HANG_S = 10.0
_POLL_S = 0.1


def wait_for_orphan(run: RunDir, say: Callable[[str], None]) -> None:
    """Waits until a Caffe whose trainer was killed has written its snapshot; then ends it.

    Only a process is ended that the kernel shows to be a Caffe of this run; whoever else holds
    the lock keeps it.
    """
    owner = read_owner(run)
    if owner is None:
        return
    orphan = _orphan(run) if is_locked(run) else None
    if orphan is not None:
        say(f"a Caffe whose trainer was killed still works here (process {orphan.pid})")
        if not _comes_to_its_end(run, orphan):
            say("it did not end by itself: killed")
            _end(run, orphan)
    if owner.container and owner.host == platform.node():
        _remove_left_over(run, owner.container)
    for _ in range(50):  # the kernel needs a moment to let go of the lock
        if orphan is None or not is_locked(run):
            return
        time.sleep(_POLL_S)


def _orphan(run: RunDir) -> Holder | None:
    """The Caffe of a run that no trainer looks after any more."""
    there = holders(run)
    pids = {holder.pid for holder in there} | {os.getpid()}
    for holder in there:
        if is_caffe_of(holder, run) and holder.parent not in pids:
            return holder
    return None


def _comes_to_its_end(run: RunDir, orphan: Holder) -> bool:
    with grip(orphan, run) as held:
        if held is None:
            return True
        deadline = time.monotonic() + _ORPHAN_S
        stopped_at: float | None = None
        while time.monotonic() < deadline:
            if held.has_ended(_POLL_S):
                return True
            if stopped_at is None and last_log(run).stopped:
                stopped_at = time.monotonic()
            if stopped_at is not None and time.monotonic() > stopped_at + _HANG_S:
                break  # with several GPUs it hangs after that
    return False


def _end(run: RunDir, orphan: Holder) -> None:
    """Ends a Caffe, and what it has started in its session, where it holds the lock, too."""
    if "--name" in orphan.argv[:-1]:  # docker's client; SIGKILL is not passed on
        kill_container(orphan.argv[orphan.argv.index("--name") + 1])
    for holder in holders(run):
        is_its_own = holder.session == orphan.session == orphan.pid
        if holder == orphan or is_its_own:
            with grip(holder, run) as held:
                if held is not None:
                    held.kill()


def _remove_left_over(run: RunDir, container: str) -> None:
    """Removes a container that a file names, where it is one that trains this run."""
    if str(run.solver.absolute()) in container_command(container):
        remove_container(container)
