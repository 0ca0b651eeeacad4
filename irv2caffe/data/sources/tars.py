"""Tar archives, also of tars: where each image lies in them. Nothing is ever unpacked to disk."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from irv2caffe.data.items import MAX_FILE_BYTES, Item, Items, Skipped
from irv2caffe.data.sources.folders import has_image_suffix
from irv2caffe.errors import FormatError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAX_HEADER_BYTES = 1 << 20  # long names and the like; images are never read through tarfile
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"(\xb5": "unzstd"}


@dataclass
class TarIndex:
    """What an archive holds.

    Attributes:
        members: images and where they lie, in the order of the archive and without labels; those
            of an inner ``CLASS.tar`` are called ``CLASS/...``.
        skipped: what was found to be no image.
        num_inner: tars in the tar.
    """

    members: Items = field(default_factory=Items)
    skipped: list[Skipped] = field(default_factory=list)
    num_inner: int = 0

    def sorted_members(self) -> Iterator[Item]:
        """The images by their names; the names of a million are never objects at once."""
        names = (self.members.name_bytes(index) for index in range(len(self.members)))
        longest = len(self.members.name_bytes(self.members.longest_name))
        packed = np.fromiter(names, np.dtype((bytes, max(1, longest))), len(self.members))
        return (self.members[int(index)] for index in np.argsort(packed, kind="stable"))


class _Section:
    """A part of a file, as a file; all that tarfile asks for."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor = descriptor
        self._start = start
        self._size = size
        self._place = 0

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        left = max(0, self._size - self._place)
        data = os.pread(self._descriptor, min(size, left), self._start + self._place)
        self._place += len(data)
        return data

    def seek(self, place: int) -> int:
        self._place = place
        return place

    def tell(self) -> int:
        return self._place


def index_tar(path: Path) -> TarIndex:
    """Reads the headers of an archive and of the tars in it.

    Raises:
        FormatError: no tar, a compressed one, or one that is cut short.
        InputError: it cannot be read.
    """
    index = TarIndex()
    try:
        with path.open("rb") as stream:
            _refuse_compressed(stream.read(2), path)
            size = os.fstat(stream.fileno()).st_size
            for info in _headers(_Section(stream.fileno(), 0, size), path):
                if info.isreg() and info.name.endswith(".tar"):
                    index.num_inner += 1
                    section = _Section(stream.fileno(), info.offset_data, info.size)
                    prefix = PurePosixPath(info.name).stem
                    for inner in _headers(section, path, f"{info.name} in "):
                        _take(index, inner, f"{prefix}/", info.offset_data)
                else:
                    _take(index, info, "", 0)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return index


def _take(index: TarIndex, info: tarfile.TarInfo, prefix: str, start: int) -> None:
    name = info.name.removeprefix("./")
    if info.isdir() or not has_image_suffix(name):
        return
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        index.skipped.append(Skipped(prefix + name, "its path leaves the archive"))
    elif not info.isreg() or info.issparse():
        index.skipped.append(Skipped(prefix + name, "a link or special file in an archive"))
    elif info.size > MAX_FILE_BYTES:
        index.skipped.append(
            Skipped(prefix + name, "too large for an image", f"{info.size:,} bytes")
        )
    else:
        index.members.add(Item(prefix + name, 0, 0, start + info.offset_data, info.size))


def _headers(section: _Section, path: Path, where: str = "") -> Iterator[tarfile.TarInfo]:
    """The headers of a tar, one at a time."""
    try:
        stream = cast("BinaryIO", section)
        with tarfile.open(fileobj=stream, mode="r:", errorlevel=2) as archive:
            while (info := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                if info.size < 0:  # the next header would be looked for before this one
                    raise tarfile.ReadError(f"{info.name!r} has a negative size")
                yield info
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            f"{where}a broken tar: {error}", "is its download complete?", path=path
        ) from error


def _refuse_compressed(start: bytes, path: Path) -> None:
    if start in _COMPRESSED:
        raise FormatError(
            "a compressed archive, whose images cannot be read in any order",
            f"take the compression off first: {_COMPRESSED[start]} {path.name}",
            path=path,
        )
