"""Starts the ranks of this machine and watches them.

all run       a SIGINT or SIGHUP goes on to the first rank, which tells the others
one fails     it is said to the other machines, the rest is killed, its error is shown last
all end       with exit status 0: so does the launcher
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from irv2caffe.engine.parallel.group import LAUNCHER
from irv2caffe.engine.parallel.meeting import Machines, Meeting, meet
from irv2caffe.engine.parallel.store import wait_until_set
from irv2caffe.system import num_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

FORWARDED = (signal.SIGINT, signal.SIGHUP)
"""Blocked in the ranks until they have handlers for them."""

_POLL_S = 1.0
_END_S = 30.0
_SHOWN_BYTES = 16 << 10


@dataclass(frozen=True)
class Rank:
    """A rank that was started.

    Attributes:
        number: among the ranks of all machines.
        process: of this rank.
        errors: what it wrote on stderr; None for the first rank of this machine, which writes on
            that of the launcher.
    """

    number: int
    process: subprocess.Popen[bytes]
    errors: IO[bytes] | None


def launch(
    command: Sequence[str],
    num_ranks: int,
    machines: Machines = Machines(),  # noqa: B008 - frozen
    *,
    fatal: Callable[[str], None],
) -> int:
    """Runs a command as several ranks, on this machine and maybe others.

    Args:
        command: of each rank; it calls :func:`irv2caffe.engine.parallel.group.open_group`.
        num_ranks: how many to start on this machine.
        machines: that train together.
        fatal: writes the last line of the log, why the run ends.

    Returns:
        The exit status of the first rank that failed, 128 + N after signal N; else 0.

    Raises:
        Irv2CaffeError: the machines do not find each other.
    """
    meeting = meet(machines, num_ranks)
    with contextlib.ExitStack() as stack:
        ranks = [
            stack.enter_context(_rank(command, local, num_ranks, meeting))
            for local in range(num_ranks)
        ]
        with _forwarding(ranks[0].process):
            status = _watch(ranks, meeting, fatal)
        if status == 0:
            _leave(machines, meeting)
        return status


@contextlib.contextmanager
def _rank(command: Sequence[str], local: int, num_ranks: int, meeting: Meeting) -> Iterator[Rank]:
    """Starts a rank; kills it at the end if it still runs."""
    number = meeting.first_rank + local
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile()) if local else None
        held = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
        try:
            process = subprocess.Popen(
                command,
                env={**os.environ, **_environment(local, num_ranks, meeting)},
                stdin=subprocess.DEVNULL,
                stderr=errors,
                process_group=0,  # a Ctrl-C on the terminal reaches only the launcher
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        try:
            yield Rank(number, process, errors)
        finally:
            process.kill()
            process.wait()


def _environment(local: int, num_ranks: int, meeting: Meeting) -> Mapping[str, str]:
    """The variables that torchrun sets too, and which network to use."""
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, num_cores() // num_ranks)))
    return {
        "RANK": str(meeting.first_rank + local),
        "WORLD_SIZE": str(meeting.world),
        "LOCAL_RANK": str(local),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": meeting.host,
        "MASTER_PORT": str(meeting.port),
        "TORCHELASTIC_RUN_ID": "irv2caffe",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": threads,
        LAUNCHER: str(os.getpid()),
        **({"GLOO_SOCKET_IFNAME": meeting.interface} if meeting.interface else {}),
    }


@contextlib.contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Sends signals on to one rank only, so that they are acted on once."""

    def forward(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(ranks: Sequence[Rank], meeting: Meeting, fatal: Callable[[str], None]) -> int:
    """Waits until all ranks have ended, or the first has failed."""
    with _ends_of(ranks) as wait:
        while True:
            statuses = [rank.process.poll() for rank in ranks]
            for rank, status in zip(ranks, statuses, strict=True):
                if status:
                    return _failed(rank, status, ranks, meeting, fatal)
            if None not in statuses:
                return 0
            if elsewhere := _failure_elsewhere(meeting):
                _kill(ranks)
                fatal(elsewhere)
                return 1
            wait()


@contextlib.contextmanager
def _ends_of(ranks: Sequence[Rank]) -> Iterator[Callable[[], None]]:
    """Gives a function that waits until a rank ends, for a second at most."""
    with contextlib.ExitStack() as stack:
        poll = select.poll()
        for rank in ranks:
            with contextlib.suppress(AttributeError, OSError):  # no pidfds: a fixed interval
                end = os.pidfd_open(rank.process.pid)
                stack.callback(os.close, end)
                poll.register(end, select.POLLIN)

        def wait() -> None:
            for end, _ in poll.poll(1000 * _POLL_S):
                poll.unregister(end)  # its status is seen by the caller

        yield wait


def _failed(
    rank: Rank,
    status: int,
    ranks: Sequence[Rank],
    meeting: Meeting,
    fatal: Callable[[str], None],
) -> int:
    """Ends the run after the failure of a rank, whose error comes last."""
    how = f"was killed by {_signal_name(-status)}" if status < 0 else f"failed with exit {status}"
    text = f"rank {rank.number} of {meeting.world} (process {rank.process.pid}) {how}"
    with contextlib.suppress(RuntimeError):
        meeting.store.set("failed", f"machine {meeting.node}: {text}")
    _kill(ranks)
    shown = _last_words(rank)
    if shown:
        fatal(f"{text}; its last lines:")
        sys.stderr.write(shown)
        sys.stderr.flush()
    elif status < 0:
        fatal(text)
    return status if status > 0 else 128 - status


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_words(rank: Rank) -> str:
    if rank.errors is None:
        return ""
    size = rank.errors.seek(0, os.SEEK_END)
    rank.errors.seek(max(0, size - _SHOWN_BYTES))
    return rank.errors.read().decode(errors="replace")


def _kill(ranks: Sequence[Rank]) -> None:
    for rank in ranks:
        rank.process.kill()
    for rank in ranks:
        rank.process.wait()


def _failure_elsewhere(meeting: Meeting) -> str:
    """What ended another machine's part of the run; empty if nothing did."""
    try:
        return meeting.store.get("failed").decode() if meeting.store.check(["failed"]) else ""
    except RuntimeError as error:
        return f"machine 0 is gone: {error}"


def _leave(machines: Machines, meeting: Meeting) -> None:
    """Machine 0, which has the store, ends last."""
    with contextlib.suppress(RuntimeError):
        if meeting.store.add("left", 1) == machines.nnodes:
            meeting.store.set("all left", b"")
        if meeting.node == 0:
            wait_until_set(meeting.store, "all left", _END_S)
