"""Runs mmdebstrap to unpack Debian packages into a folder, and explains its errors."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from irv2caffe.errors import InstallError
from irv2caffe.system import kill_group
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUITE = "bullseye"
DEFAULT_MIRROR = "mmdebstrap's default mirror"
LISTING = "irv2caffe-packages.txt"  # file in the folder that lists the packages
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Give up if less than this arrives in that time: apt would wait for a slow mirror for ever.
_STALL_S = 120.0
_STALL_BYTES = 200_000
_LOOK_EVERY_S = 2.0
_SAY_EVERY_S = 20.0
_LAST_WORDS_BYTES = 1 << 16
# Executes its arguments as a program. A background process waits for the end of standard input, a
# pipe held by this process, and kills the process group if this process dies, even by SIGKILL.
_ENDS_WITH_US = """
exec 3<&0 </dev/null
(trap '' TERM; exec >/dev/null 2>&1; read _ <&3; kill -TERM 0; sleep 5; kill -KILL 0) &
exec 3<&-
exec "$@"
"""
# Pattern in the output of mmdebstrap or apt, error message, hint.
_MEANINGS = (
    (
        r"Could not (?:resolve|connect)|Temporary failure|onnection (?:failed|refused)|to connect",
        "the mirror {mirror} cannot be reached",
        "check the network, or choose another mirror with --mirror",
    ),
    (
        r"No space left on device|not enough free space|write error",
        "the disk is full",
        "choose a folder on another disk with --prefix",
    ),
    (
        r"NO_PUBKEY|not signed|signatures? (?:couldn't be verified|were invalid)|keyring|EXPKEYSIG",
        "the packages of {mirror} cannot be verified",
        "install the package debian-archive-keyring",
    ),
    (
        r"does not have a Release file|404 +Not Found|File not found|Malformed|Unable to locate",
        "the mirror {mirror} does not have the suite bullseye",
        "choose another Debian mirror, or one of the archive, with --mirror",
    ),
)


def unpack(
    folder: Path, mirror: str, packages: list[str], say: Callable[[str], None] = lambda _: None
) -> None:
    """Runs mmdebstrap, which ends with this process, whatever ends it.

    Args:
        folder: target folder.
        mirror: URL of a Debian mirror, or empty for mmdebstrap's default.
        packages: names of the packages; their dependencies are added.
        say: called with messages on the progress.

    Raises:
        InstallError: mmdebstrap failed, or the mirror sends nothing.
    """
    command = [
        "mmdebstrap",
        "--variant=extract",
        "--mode=chrootless",
        f"--include={','.join(packages)}",
        f"--keyring={KEYRING}",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        # dpkg does not list packages that are only unpacked. $1 is the folder.
        f'--extract-hook=ls "$1/var/cache/apt/archives" > "$1/{LISTING}"',
        SUITE,
        str(folder),
        *([mirror] if mirror else []),
    ]
    # The temporary folder lies beside the result, where the free space was checked; its name
    # begins like the result's, so that the next install removes both if this one is killed.
    with (
        tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as scratch,
        tempfile.TemporaryFile() as output,
    ):
        with _started(command, scratch, output) as child:
            _wait(child, folder, mirror, say)
        if child.returncode != 0:
            output.seek(max(0, output.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
            raise _explain(output.read().decode("utf-8", "replace"), mirror)


@contextmanager
def _started(
    command: list[str], scratch: str, output: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command in its own process group, which is killed at the end of the block."""
    read_end, write_end = os.pipe()
    try:
        try:
            child = subprocess.Popen(
                ["sh", "-c", _ENDS_WITH_US, "sh", *command],
                env={**os.environ, "TMPDIR": scratch, "LC_ALL": "C.UTF-8"},
                stdin=read_end,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            os.close(read_end)
        try:
            yield child
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    child.wait(20)
            kill_group(child)
            child.wait()
    finally:
        os.close(write_end)


def _wait(
    child: subprocess.Popen[bytes], folder: Path, mirror: str, say: Callable[[str], None]
) -> None:
    """Waits for the end, and checks that data arrives.

    Raises:
        InstallError: almost no data arrives.
    """
    size, arrived_at = 0, time.monotonic()
    say_at = arrived_at + _SAY_EVERY_S
    while True:
        with suppress(subprocess.TimeoutExpired):
            child.wait(_LOOK_EVERY_S)
            return
        now, now_s = folder_bytes(folder), time.monotonic()
        if abs(now - size) >= _STALL_BYTES:
            size, arrived_at = now, now_s
        if now_s - arrived_at > _STALL_S:
            raise InstallError(
                f"{mirror or DEFAULT_MIRROR} sent almost nothing in {_STALL_S:.0f} s",
                "choose another Debian mirror with --mirror; is the network behind a proxy?",
            )
        if now_s > say_at:
            say_at = now_s + _SAY_EVERY_S
            say(f"{format_bytes(now)} downloaded and unpacked so far")


def folder_bytes(folder: Path) -> int:
    """Returns the size of all files below a folder, which may be changing meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118
    return total


def _explain(output: str, mirror: str) -> InstallError:
    """Returns the error that the output of mmdebstrap indicates."""
    for pattern, meaning, way_out in _MEANINGS:
        if re.search(pattern, output):
            return InstallError(meaning.format(mirror=mirror or DEFAULT_MIRROR), way_out)
    said = [line for line in output.splitlines() if line.startswith(("E:", "Err:"))]
    return InstallError(
        f"mmdebstrap failed: {'; '.join(said[:3]) or output[-300:].strip()}",
        "choose another Debian mirror with --mirror",
    )
