"""What a program prints, within limits of time and of size: it may be anything."""

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
    """(exit status, everything printed) of a program; what it leaves running is ended.

    Raises:
        InstallError: it takes too long, or prints too much.
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
            raise InstallError(f"{argv[0]} did not end within {timeout_s:.0f} s")
        if len(data) > limit_bytes:
            raise InstallError(f"{argv[0]} printed more than {limit_bytes:,} bytes")
    finally:
        # Before its end is taken note of: until then nobody else can have its number.
        kill_group(child)
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    return child.returncode, data.decode("utf-8", "replace")


def _read(child: subprocess.Popen[bytes], deadline: float, limit_bytes: int) -> bytes | None:
    """Until the program ends, though what it started may keep the pipe; None: it does not."""
    assert child.stdout is not None
    handle, data = child.stdout.fileno(), bytearray()
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    while time.monotonic() < deadline:
        has_ended = _has_ended(child)  # asked first: what it printed is in the pipe by then
        if poll.poll(0 if has_ended else 1000 * _LOOK_S):
            piece = os.read(handle, _PIECE_BYTES)
            data += piece
            if len(data) > limit_bytes:
                return bytes(data)
            if not piece:  # closed: only its end is waited for
                poll.unregister(handle)
        elif has_ended:
            return bytes(data)
    return None


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, child.pid, options) is not None
