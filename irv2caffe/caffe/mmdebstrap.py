"""mmdebstrap: which packages it unpacks where, and what its last words mean."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from irv2caffe.errors import InstallError

SUITE = "bullseye"
DEFAULT_MIRROR = "mmdebstrap's default mirror"
LISTING = "irv2caffe-packages.txt"  # the names of the packages, in the folder
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# A part of mmdebstrap's or apt's last words, what it means, and the way out.
_MEANINGS = (
    (
        r"Could not (?:resolve|connect)|Temporary failure|onnection (?:failed|refused)|to connect",
        "the mirror {mirror} cannot be reached",
        "is there a network? --mirror URL names another mirror",
    ),
    (
        r"No space left on device|not enough free space|write error",
        "the disk is full",
        "--prefix DIR names a folder on another disk",
    ),
    (
        r"NO_PUBKEY|not signed|signatures? (?:couldn't be verified|were invalid)|keyring|EXPKEYSIG",
        "the packages of {mirror} cannot be verified",
        "install the package debian-archive-keyring",
    ),
    (
        r"does not have a Release file|404 +Not Found|File not found|Malformed|Unable to locate",
        "the mirror {mirror} does not have the suite bullseye",
        "--mirror URL names another Debian mirror, or one of its archive",
    ),
)


def unpack(folder: Path, mirror: str, packages: list[str]) -> None:
    """Runs mmdebstrap; whatever ends us ends it and its children too.

    Args:
        folder: that the packages are unpacked into.
        mirror: a Debian mirror, or empty for mmdebstrap's own.
        packages: with what they need.

    Raises:
        InstallError: what its last words mean.
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
        # Unpacked is not installed: dpkg's own list stays empty. A constant; $1 is the folder.
        f'--extract-hook=ls "$1/var/cache/apt/archives" > "$1/{LISTING}"',
        SUITE,
        str(folder),
        *([mirror] if mirror else []),
    ]
    # mmdebstrap keeps its scratch beside the result, where the space was counted.
    env = {**os.environ, "TMPDIR": str(folder.parent), "LC_ALL": "C.UTF-8"}
    child = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = child.communicate()
    finally:
        if child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                child.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if child.returncode != 0:
        raise _explain(output.decode("utf-8", "replace"), mirror)


def _explain(output: str, mirror: str) -> InstallError:
    """What mmdebstrap's last words mean."""
    for pattern, meaning, way_out in _MEANINGS:
        if re.search(pattern, output):
            return InstallError(meaning.format(mirror=mirror or DEFAULT_MIRROR), way_out)
    said = [line for line in output.splitlines() if line.startswith(("E:", "Err:"))]
    return InstallError(
        f"mmdebstrap failed: {'; '.join(said[:3]) or output[-300:].strip()}",
        "--mirror URL names another Debian mirror",
    )
