"""Runs a program with limits on its time and output."""

from __future__ import annotations

import os
import select
import subprocess
import time
from typing import TYPE_CHECKING

from irv2caffe.errors import InstallError
from irv2caffe.system import kill_group

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_PIECE_BYTES = 1 << 16
_LOOK_S = 0.1


def printed(
    argv: Sequence[str],
    env: Mapping[str, str],
    folder: Path | None,
    *,
    timeout_s: float,
    limit_bytes: int,
) -> tuple[int, str]:
    """Runs a program; returns its exit status and output, and kills what it leaves running.

    Raises:
        InstallError: it takes longer or prints more than allowed.
        OSError: it cannot be started.
    """
    child = subprocess.Popen(
        argv,
        env=env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        data = _read(child, time.monotonic() + timeout_s, limit_bytes)
        if data is None:
            raise InstallError(f"{argv[0]} did not finish within {timeout_s:.0f} s")
        if len(data) > limit_bytes:
            raise InstallError(f"{argv[0]} printed more than {limit_bytes:,} bytes")
    finally:
        # Before wait(), which lets the system reuse the process number.
        kill_group(child)
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    return child.returncode, data.decode("utf-8", "replace")


def _read(child: subprocess.Popen[bytes], deadline: float, limit_bytes: int) -> bytes | None:
    """Reads until the program ends, even if its children keep the pipe open; None on timeout."""
    assert child.stdout is not None
    handle, data = child.stdout.fileno(), bytearray()
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    while time.monotonic() < deadline:
        has_ended = _has_ended(child)  # checked first: its output is in the pipe by then
        if poll.poll(0 if has_ended else 1000 * _LOOK_S):
            piece = os.read(handle, _PIECE_BYTES)
            data += piece
            if len(data) > limit_bytes:
                return bytes(data)
            if not piece:  # closed by the program, which still runs
                poll.unregister(handle)
        elif has_ended:
            return bytes(data)
    return None


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, child.pid, options) is not None
