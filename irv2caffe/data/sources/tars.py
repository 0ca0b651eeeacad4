"""Index of the images in a tar archive and in the tars inside it; nothing is unpacked to disk."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from irv2caffe.data.records.items import MAX_FILE_BYTES, Item, Items, Skipped
from irv2caffe.data.sources.folders import OF_SYSTEMS, has_image_suffix, is_of_system
from irv2caffe.data.sources.tar_headers import Member, tar_members
from irv2caffe.errors import FormatError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"(\xb5": "unzstd"}


@dataclass
class TarIndex:
    """The images of an archive.

    Attributes:
        members: the images and their offsets, in the order of the archive, without labels; names
            of those in an inner ``CLASS.tar`` begin with ``CLASS/``.
        skipped: members that cannot be used.
        num_inner: number of tars in the tar.
    """

    members: Items = field(default_factory=Items)
    skipped: list[Skipped] = field(default_factory=list)
    num_inner: int = 0

    def sorted_members(self) -> Iterator[Item]:
        """The images sorted by name, without a Python object for each name."""
        names = (self.members.name_bytes(index) for index in range(len(self.members)))
        longest = len(self.members.name_bytes(self.members.longest_name))
        packed = np.fromiter(names, np.dtype((bytes, max(1, longest))), len(self.members))
        return (self.members[int(index)] for index in np.argsort(packed, kind="stable"))


def index_tar(path: Path) -> TarIndex:
    """Reads the headers of an archive and of the tars inside it.

    Raises:
        FormatError: not a tar, or a compressed or truncated one.
        InputError: it cannot be read.
    """
    index = TarIndex()
    try:
        with path.open("rb") as stream:
            _refuse_compressed(stream.read(2), path)
            handle = stream.fileno()
            for member in tar_members(_part_reader(handle, 0, os.fstat(handle).st_size), path):
                is_tar = member.is_file and member.name.endswith(".tar")
                if is_tar and not _is_of_system(member.name):
                    index.num_inner += 1
                    part = _part_reader(handle, member.place, member.size)
                    prefix = PurePosixPath(member.name).stem
                    for inner in tar_members(part, path, f"{member.name} in "):
                        _add(index, inner, f"{prefix}/", member.place)
                else:
                    _add(index, member, "", 0)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return index


def _part_reader(handle: int, start: int, size: int) -> Callable[[int, int], bytes]:
    """A function that reads from a part of a file; offsets count from its start."""

    def read(place: int, wanted: int) -> bytes:
        return os.pread(handle, min(wanted, size - place), start + place) if place < size else b""

    return read


def _add(index: TarIndex, member: Member, prefix: str, start: int) -> None:
    name = member.name.removeprefix("./")
    if member.is_folder or not has_image_suffix(name):
        return
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        index.skipped.append(Skipped(prefix + name, "its path leaves the archive"))
    elif _is_of_system(name):
        return
    elif not member.is_file:
        index.skipped.append(Skipped(prefix + name, "a link or special file in an archive"))
    elif member.size > MAX_FILE_BYTES:
        index.skipped.append(
            Skipped(prefix + name, "too large for an image", f"{member.size:,} bytes")
        )
    else:
        index.members.add(Item(prefix + name, 0, 0, start + member.place, member.size))


def _is_of_system(name: str) -> bool:
    """As for class folders, but the outermost folder may be hidden."""
    parts = name.removeprefix("./").split("/")
    return any(map(is_of_system, parts[1:] or parts)) or parts[0] in OF_SYSTEMS


def _refuse_compressed(start: bytes, path: Path) -> None:
    if start in _COMPRESSED:
        raise FormatError(
            "a compressed archive, whose images cannot be read in any order",
            f"take the compression off first: {_COMPRESSED[start]} {path.name}",
            path=path,
        )
