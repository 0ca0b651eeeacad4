"""Downloads pinned packages: from Debian mirrors, and with pip from the Python package index."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

from irv2caffe.atomic import atomic_file, write_error
from irv2caffe.errors import InstallError
from irv2caffe.system import kill_group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from irv2caffe.caffe.build_cuda.packages import Package

_TIMEOUT_S = 60
_THREADS = 8
_BLOCK_BYTES = 1 << 20
_SHOWN = 300


class _NotThereError(Exception):
    """A mirror cannot be reached or does not have the file."""


def missing_packages(listed: Sequence[Package], folder: Path) -> list[Package]:
    """Returns the packages that are not in ``folder`` yet.

    A file gets its name only after its digest was checked, so that the length suffices here.
    """
    return [package for package in listed if _length(folder / package.name) != package.size_bytes]


def download(
    listed: Sequence[Package],
    folder: Path,
    mirrors: Sequence[str],
    say: Callable[[str], None] = lambda _: None,
    update: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Downloads what is missing in ``folder``.

    Args:
        listed: the packages.
        folder: where the files are kept; it is created.
        mirrors: URLs of Debian mirrors, tried in this order for each file.
        say: called before each large file, with a message.
        update: called with the numbers of Debian packages that are there, and of all.

    Raises:
        InstallError: a file cannot be downloaded, or its digest is wrong.
        OutputError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wheels = [package for package in missing_packages(listed, folder) if package.is_wheel]
    debs = [package for package in missing_packages(listed, folder) if not package.is_wheel]
    _download_debs(debs, folder, mirrors, update)
    for number, package in enumerate(wheels, 1):
        megabytes = package.size_bytes / 1e6
        say(f"downloading {package.place}, {megabytes:,.0f} MB ({number} of {len(wheels)})")
        _download_wheel(package, folder)


def _download_debs(
    debs: Sequence[Package],
    folder: Path,
    mirrors: Sequence[str],
    update: Callable[[int, int], None],
) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        futures = [pool.submit(_download_deb, package, folder, mirrors) for package in debs]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                update(done, len(debs))
        finally:
            pool.shutdown(cancel_futures=True)


def _download_deb(package: Package, folder: Path, mirrors: Sequence[str]) -> None:
    reasons = []
    for mirror in mirrors:
        try:
            _fetch(f"{mirror}/{quote(package.place)}", package, folder)
        except _NotThereError as error:
            reasons.append(f"{mirror}: {error}")
        else:
            return
    raise InstallError(
        f"{package.name} cannot be downloaded ({'; '.join(reasons)[:_SHOWN]})",
        "check the network, or give another Debian mirror or a mirror of its archive with --mirror "
        "or --second-mirror; what has arrived is kept for the next run",
    )


def _fetch(url: str, package: Package, folder: Path) -> None:
    """Downloads one file and checks it."""
    with atomic_file(folder / package.name) as aside, aside.open("wb") as file:
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply:  # noqa: S310 - checked
                while block := reply.read(_BLOCK_BYTES):
                    _write(file, block, folder / package.name)
                    if file.tell() > package.size_bytes:
                        break
        except urllib.error.HTTPError as error:
            raise _NotThereError(f"{error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise _NotThereError(str(getattr(error, "reason", error))) from error
        if _sha256(aside) != package.sha256:
            raise _NotThereError("not the pinned file, its SHA-256 differs")


def _write(file: IO[bytes], block: bytes, path: Path) -> None:
    try:
        file.write(block)
        file.flush()
    except OSError as error:
        raise write_error(path, error) from error


def _download_wheel(package: Package, folder: Path) -> None:
    """Downloads a package with pip, which checks the digest and uses the user's own settings."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as name:
        aside = Path(name)
        wanted = aside / "requirements.txt"
        wanted.write_text(f"{package.place} --hash=sha256:{package.sha256}\n", encoding="utf-8")
        options = ["--no-deps", "--no-cache-dir", "--only-binary=:all:", "--require-hashes"]
        said, status = _run_pip(
            [*_pip(), "download", "-q", *options, "-d", str(aside), "-r", str(wanted)]
        )
        files = list(aside.glob("*.whl"))
        if status != 0 or len(files) != 1:
            raise _pip_error(package, said)
        if _sha256(files[0]) != package.sha256:
            raise InstallError(f"{package.place} is not the pinned file, its SHA-256 differs")
        files[0].replace(folder / package.name)


def _run_pip(command: Sequence[str]) -> tuple[str, int]:
    """Runs pip, and ends it if this process is interrupted."""
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        said, _ = child.communicate()
    finally:
        kill_group(child)
        child.wait()
    return said.decode("utf-8", "replace"), child.returncode


def _pip() -> list[str]:
    """Returns the command that runs pip.

    Raises:
        InstallError: there is no pip.
    """
    import importlib.util

    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    program = shutil.which("pip3") or shutil.which("pip")
    if program is None:
        raise InstallError(
            "pip is missing, which downloads NVIDIA's packages",
            "run: python -m ensurepip, or install the package python3-pip",
        )
    return [program]


def _pip_error(package: Package, said: str) -> InstallError:
    if "DO NOT MATCH THE HASHES" in said:
        return InstallError(
            f"{package.place} is not the pinned file, its SHA-256 differs",
            "the package index, or a mirror between, sends another file; set PIP_INDEX_URL to "
            "another one",
        )
    if "No space left" in said:
        return InstallError(
            f"the disk is full while downloading {package.place}",
            "free some space, or choose a folder on another disk with --build-dir",
        )
    lines = [line for line in said.splitlines() if "ERROR" in line or "rror:" in line]
    return InstallError(
        f"pip cannot download {package.place}: {'; '.join(lines[-2:])[-_SHOWN:]}",
        "check the network and pip's settings, such as PIP_INDEX_URL; what has arrived is kept for "
        "the next run",
    )


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
