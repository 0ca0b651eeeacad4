"""Unpacks Debian packages, wheels and Caffe's source, without programs of the host.

The files were checked by their digests. Absolute links become relative ones, so that an unpacked
tree is complete in itself.
"""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from irv2caffe.errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Callable

_AR = b"!<arch>\n"
_AR_HEADER = 60
_LEFT_OUT = ("usr/share/man/", "usr/share/locale/", "usr/share/doc/", "usr/share/lintian/")
_LICENSE = "copyright"
_DAMAGED = (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error)


def unpack_deb(
    path: Path,
    folder: Path,
    place: Callable[[str], str | None] = lambda name: name,
) -> None:
    """Unpacks a Debian package.

    Args:
        path: the package.
        folder: where its files go.
        place: returns where below ``folder`` a file of the package goes, or None to leave it out.

    Raises:
        InstallError: not a Debian package, or it would write outside the folder.
    """
    with path.open("rb") as stream:
        _to_data(stream, path)
        try:
            # Not tarfile's own mode for xz, which takes a truncated file for a short one.
            with lzma.open(stream) as tar, tarfile.open(fileobj=tar, mode="r|") as archive:
                for member in archive:
                    name = member.name.removeprefix("./").rstrip("/")
                    target = None if _is_left_out(name) else place(name)
                    if target:
                        _unpack_member(archive, member, folder, target)
        except _DAMAGED as error:
            raise InstallError(f"{path} is damaged: {error}") from error


def unpack_source(path: Path, folder: Path) -> None:
    """Unpacks a source archive (.tar.gz).

    Raises:
        InstallError: damaged, or it would write outside the folder.
    """
    try:
        with tarfile.open(path, mode="r:gz") as archive:
            for member in archive:
                name = member.name.removeprefix("./").rstrip("/")
                if name:
                    _unpack_member(archive, member, folder, name)
    except _DAMAGED as error:
        raise InstallError(f"{path} is damaged: {error}") from error


def unpack_wheel(path: Path, folder: Path, wanted: Callable[[str], bool] = lambda _: True) -> None:
    """Unpacks one of NVIDIA's wheels; ``nvidia/cublas/lib/x`` becomes ``lib/x``.

    Args:
        path: the wheel.
        folder: where its files go.
        wanted: tells from the path in ``folder`` whether a file is unpacked.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            top, *parts = PurePosixPath(entry.filename).parts
            if top != "nvidia" or len(parts) < 3 or entry.is_dir():
                continue
            target = _inside(folder, "/".join(parts[1:]))
            if not wanted("/".join(parts[1:])):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out)
            # Wheels do not keep the permission to run programs.
            target.chmod(0o755 if "bin" in parts[1:-1] else 0o644)


def _to_data(stream: IO[bytes], path: Path) -> None:
    """Moves to the data of a Debian package, an ar archive that holds tar archives."""
    if stream.read(len(_AR)) != _AR:
        raise InstallError(f"{path} is not a Debian package")
    while len(header := stream.read(_AR_HEADER)) == _AR_HEADER:
        if header[:16].strip().rstrip(b"/") == b"data.tar.xz":
            return
        size = int(header[48:58])
        stream.seek(size + size % 2, os.SEEK_CUR)
    raise InstallError(f"{path} has no data.tar.xz")


def _is_left_out(name: str) -> bool:
    return name.startswith(_LEFT_OUT) and not name.endswith(f"/{_LICENSE}")


def _unpack_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, name: str
) -> None:
    path = _inside(folder, name)
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink()
    if member.issym():
        link = member.linkname
        if link.startswith("/"):
            link = os.path.relpath(link, f"/{PurePosixPath(name).parent}")
        path.symlink_to(link)
    elif member.islnk():
        path.hardlink_to(_inside(folder, member.linkname.removeprefix("./")))
    elif member.isreg():
        content = archive.extractfile(member)
        assert content is not None
        with content, path.open("wb") as out:
            shutil.copyfileobj(content, out)
        path.chmod(member.mode & 0o755 | 0o600)


def _inside(folder: Path, name: str) -> Path:
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise InstallError(f"a package holds the path {name!r}, outside its folder")
    return folder / name
