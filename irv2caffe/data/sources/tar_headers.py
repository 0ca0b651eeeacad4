"""Reader for the headers of a tar, in bounded memory and time.

Python's tarfile reads headers of any size into memory, parses some of them in quadratic time, and
treats a damaged header as the end of the archive. Only its parser for one block is used.
"""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, NamedTuple

from irv2caffe.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Read = Callable[[int, int], bytes]

BLOCK_BYTES = 512
_MAX_HEADER_BYTES = 1 << 20  # of long names and the like
_MAX_DIGITS = 20
_SPARSE_GOES_ON, _SPARSE_BLOCK_GOES_ON = 482, 504  # places in a header and in its extension


class Member(NamedTuple):
    """A member of an archive.

    Attributes:
        name: path in the archive, with ``/``.
        place: offset of its bytes.
        size: number of its bytes.
        is_file: a regular file; not a folder, link, device or sparse file.
        is_folder: a folder.
    """

    name: str
    place: int
    size: int
    is_file: bool
    is_folder: bool


def tar_members(read: Read, path: Path, where: str = "") -> Iterator[Member]:
    """Yields the members in the order of the archive.

    Args:
        read: returns the bytes at (place, size); fewer at the end of the archive.
        path: of the file, for messages.
        where: inner archive, for messages.

    Raises:
        FormatError: not a tar, or a damaged or truncated one.
    """
    try:
        yield from _members(read)
    except tarfile.TarError as error:
        raise FormatError(
            f"{where}a broken tar: {error}", "is its download complete?", path=path
        ) from error


def _members(read: Read) -> Iterator[Member]:
    place = 0
    of_all: dict[str, str] = {}
    of_next: dict[str, str] = {}
    while (info := _header(read, place)) is not None:
        start = place + BLOCK_BYTES
        if info.type in {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}:
            if info.type == tarfile.GNUTYPE_LONGNAME:
                of_next["path"] = _text(_body(read, start, info).split(b"\0")[0])
        elif info.type in {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}:
            of_next |= _extended(_body(read, start, info))
        elif info.type == tarfile.XGLTYPE:
            of_all |= _extended(_body(read, start, info))
        else:
            if info.type == tarfile.GNUTYPE_SPARSE:
                start = _behind_sparse_map(read, place)
            member = _member(info, start, of_all | of_next)
            yield member
            has_bytes = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
            place = start + _padded(member.size if has_bytes else 0)
            of_next = {}
            continue
        place = start + _padded(info.size)
    if of_next:
        raise tarfile.ReadError("it ends behind a part of a header")


def _header(read: Read, place: int) -> tarfile.TarInfo | None:
    """The header at an offset; None at the end of the archive."""
    block = read(place, BLOCK_BYTES)
    if not block and place and read(place - 1, 1):
        return None  # some writers omit the end marker
    if len(block) < BLOCK_BYTES:
        raise tarfile.ReadError("cut short")
    if not any(block) and place:
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise tarfile.ReadError(f"no header at byte {place:,}: {error}") from error
    if info.size < 0:  # the next header would be looked for before this one
        raise tarfile.ReadError(f"{info.name!r} has a negative size")
    return info


def _member(info: tarfile.TarInfo, start: int, more: dict[str, str]) -> Member:
    size = int(more.get("size", info.size))
    is_sparse = info.type == tarfile.GNUTYPE_SPARSE or any(
        key.startswith("GNU.sparse.") for key in more
    )
    name = more.get("GNU.sparse.name", more.get("path", info.name)).rstrip("/")
    return Member(name, start, size, info.isreg() and not is_sparse, info.isdir())


def _body(read: Read, start: int, info: tarfile.TarInfo) -> bytes:
    if info.size > _MAX_HEADER_BYTES:
        raise tarfile.ReadError(f"a header of {info.size:,} bytes")
    body = read(start, info.size)
    if len(body) < info.size:
        raise tarfile.ReadError("cut short")
    return body


def _extended(body: bytes) -> dict[str, str]:
    """What matters here of a pax header: records of ``LENGTH KEY=VALUE``, each ends a line."""
    found = {}
    place = 0
    while place < len(body) and body[place]:
        blank = body.find(b" ", place, place + _MAX_DIGITS + 1)
        digits = body[place : max(place, blank)]
        end = place + int(digits) if digits.isdigit() else 0
        if not blank < end <= len(body) or body[end - 1 : end] != b"\n":
            raise tarfile.ReadError("a malformed extended header")
        key, _, value = body[blank + 1 : end - 1].partition(b"=")
        if key == b"path" or key.startswith(b"GNU.sparse."):
            found[_text(key)] = _text(value)
        elif key == b"size":
            if not value.isdigit() or len(value) > _MAX_DIGITS:
                raise tarfile.ReadError("a malformed size")
            found["size"] = _text(value)
        place = end
    return found


def _behind_sparse_map(read: Read, place: int) -> int:
    """Where the bytes of a file with holes begin: behind blocks that say where its parts lie."""
    goes_on = read(place, BLOCK_BYTES)[_SPARSE_GOES_ON]
    place += BLOCK_BYTES
    while goes_on:
        block = read(place, BLOCK_BYTES)
        if len(block) < BLOCK_BYTES:
            raise tarfile.ReadError("cut short")
        goes_on = block[_SPARSE_BLOCK_GOES_ON]
        place += BLOCK_BYTES
    return place


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
