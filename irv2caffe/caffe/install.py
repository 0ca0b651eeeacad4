"""Installs Caffe 1.0 from the Debian 11 archive into a user folder, without root.

mmdebstrap resolves, downloads, verifies and unpacks the packages; it runs no program of theirs and
changes no file outside the folder. Caffe then runs with the loader and libraries in that folder
(:mod:`irv2caffe.caffe.command`).
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from irv2caffe import system
from irv2caffe.atomic import atomic_folder, remove_orphans
from irv2caffe.caffe.find import FoundCaffe, default_prefix
from irv2caffe.caffe.manifest import MANIFEST
from irv2caffe.caffe.mirror import choose_mirror
from irv2caffe.caffe.mmdebstrap import DEFAULT_MIRROR, KEYRING, LISTING, SUITE, folder_bytes, unpack
from irv2caffe.caffe.verify import verify, version
from irv2caffe.errors import InstallError, OutputExistsError
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

_PACKAGES = ("caffe", "libopenblas0-pthread")
_PYCAFFE = "python3-caffe"
# For downloads and unpacked files, with reserve; 593 MB remain with pycaffe, 334 MB without.
_NEEDED_BYTES = {True: 1_500_000_000, False: 900_000_000}


@dataclass(frozen=True)
class InstallReport:
    """The result of install-caffe.

    Attributes:
        prefix: the folder.
        version: output of ``caffe --version``.
        pycaffe: whether it includes pycaffe.
        mirror: source of the packages.
        size_bytes: size of the folder.
        seconds: duration; 0 if it was installed before.
        checks: passed checks, one line each.
    """

    prefix: Path
    version: str
    pycaffe: bool
    mirror: str
    size_bytes: int
    seconds: float
    checks: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns the values for JSON."""
        return asdict(self)

    def summary(self) -> str:
        """Returns one line for the user."""
        with_pycaffe = "with pycaffe" if self.pycaffe else "without pycaffe"
        size = format_bytes(self.size_bytes)
        took = f"in {self.seconds:.0f} s" if self.seconds else "already installed"
        return f"Caffe {self.version} {with_pycaffe} in {self.prefix}: {size}, {took}"


def install_caffe(
    prefix: Path | None = None,
    *,
    mirror: str | None = None,
    pycaffe: bool = True,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> InstallReport:
    """Installs Caffe, unless it is already installed.

    The folder is created only after all checks have passed; an error leaves nothing behind.

    Args:
        prefix: the folder; by default in the user's data folder.
        mirror: URL of a Debian mirror; by default the one apt uses.
        pycaffe: whether to install pycaffe, with Python.
        force: whether to replace an earlier install.
        say: called with messages for the user.

    Raises:
        InstallError: a program is missing, or the install failed.
        UsageError: ``mirror`` is not a URL.
        OutputExistsError: ``prefix`` holds something else.
        OutputError: ``prefix`` cannot be written.
    """
    prefix = (prefix or default_prefix()).absolute()
    earlier = _earlier(prefix, pycaffe=pycaffe)
    if earlier is not None and not force:
        return earlier
    _check_machine()
    source = choose_mirror(mirror)
    if remove_orphans(prefix):
        say("removed the files of an install that was interrupted")
    _check_space(prefix, pycaffe=pycaffe)
    try:
        return _install(prefix, source, pycaffe=pycaffe, say=say)
    except OutputExistsError:
        earlier = _earlier(prefix, pycaffe=pycaffe)  # another process installed it meanwhile
        if earlier is None:
            raise
        return earlier


def _install(
    prefix: Path, source: str, *, pycaffe: bool, say: Callable[[str], None]
) -> InstallReport:
    """Downloads, checks, and moves to ``prefix``."""
    started = time.monotonic()
    with atomic_folder(prefix, force=prefix.exists()) as aside:
        packages = [*_PACKAGES, *([_PYCAFFE] if pycaffe else [])]
        say(f"downloading {', '.join(packages)} of Debian 11 from {source or DEFAULT_MIRROR}")
        unpack(aside, source, packages, say)
        say("checking the installation")
        checks = verify(
            FoundCaffe(aside, aside / "usr/bin", True, "just unpacked"), pycaffe=pycaffe
        )
        report = InstallReport(
            prefix=prefix,
            version=checks.version,
            pycaffe=pycaffe,
            mirror=source or DEFAULT_MIRROR,
            size_bytes=folder_bytes(aside),
            seconds=round(time.monotonic() - started, 1),
            checks=checks.passed,
        )
        _write_manifest(aside, report)
    return report


def _earlier(prefix: Path, *, pycaffe: bool) -> InstallReport | None:
    """Returns the report of an existing install that has everything required, or None."""
    if not prefix.exists() or (prefix.is_dir() and not any(prefix.iterdir())):
        return None
    try:
        manifest = json.loads((prefix / MANIFEST).read_text(encoding="utf-8"))
        size_bytes = int(manifest["size_bytes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputExistsError(
            f"{prefix} exists and was not made by install-caffe",
            "choose another folder with --prefix",
        ) from error
    if pycaffe and not manifest.get("pycaffe"):
        return None
    try:
        found = version(FoundCaffe(prefix, prefix / "usr/bin", True, "installed before"))
    except InstallError:
        return None  # damaged; to be replaced
    return InstallReport(
        prefix=prefix,
        version=found,
        pycaffe=bool(manifest.get("pycaffe")),
        mirror=str(manifest.get("mirror")),
        size_bytes=size_bytes,
        seconds=0.0,
        checks=(f"caffe --version prints {found}",),
    )


def _check_machine() -> None:
    """Checks the platform and the required programs."""
    machine = f"{platform.system()} {platform.machine()}"
    if machine != "Linux x86_64":
        raise InstallError(
            f"install-caffe works on Linux x86_64 only, this is {machine}",
            "build Caffe from source and set CAFFE_ROOT to its folder",
        )
    for program, package in (("mmdebstrap", "mmdebstrap"), ("apt-get", "apt"), ("dpkg", "dpkg")):
        if shutil.which(program) is None:
            raise InstallError(
                f"{program} is missing",
                f"as root: apt-get install {package} debian-archive-keyring (Debian 11 or newer, "
                "Ubuntu 20.10 or newer)",
            )
    if not KEYRING.is_file():
        raise InstallError(
            "the keys that verify the packages are missing",
            "as root: apt-get install debian-archive-keyring",
        )


def _check_space(prefix: Path, *, pycaffe: bool) -> None:
    free, needed = system.free_bytes(prefix), _NEEDED_BYTES[pycaffe]
    if free < needed:
        raise InstallError(
            f"{format_bytes(free)} are free for {prefix}, {format_bytes(needed)} are needed",
            "choose a folder on another disk with --prefix, or use --without-pycaffe",
        )


def _write_manifest(folder: Path, report: InstallReport) -> None:
    listing = folder / LISTING
    names = [Path(unquote(name)).stem for name in listing.read_text(encoding="utf-8").split()]
    packages = dict(name.split("_")[:2] for name in names if name.count("_") == 2)
    listing.unlink()
    manifest = {
        **report.as_dict(),
        "suite": SUITE,
        "installed": datetime.now().astimezone().isoformat(timespec="seconds"),
        "packages": packages,
    }
    text = json.dumps(manifest, indent=2, default=str) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
