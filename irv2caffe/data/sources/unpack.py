"""Decompression of gzip, bzip2 and xz files, with limits on their unpacked size."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import tempfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from irv2caffe.data.sources.tar_headers import BLOCK_BYTES, tar_members
from irv2caffe.errors import FormatError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_BLOCK_BYTES = 1 << 20
_SMALL_BYTES = 64 << 20  # allowed for any file
_MAX_RATIO = 200  # for larger ones; images of digits compress by a factor of five
_UNPACKERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZ": bz2.BZ2File,
    b"\xfd7": lzma.LZMAFile,
}


@contextmanager
def open_plain(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file, and decompresses it where it is compressed.

    Raises:
        FormatError: while reading, a truncated or damaged file.
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as raw:
            unpacker = _UNPACKERS.get(raw.read(2))
            raw.seek(0)
            if unpacker is None:
                yield raw
                return
            with unpacker(raw) as stream:
                yield stream
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        raise FormatError(
            f"cannot be unpacked: {error}", "is its download complete?", path=path
        ) from error


def most_unpacked(path: Path) -> int:
    """Limit on the unpacked size of a file: images do not compress as well as a zip bomb."""
    return max(_SMALL_BYTES, _MAX_RATIO * path.stat().st_size)


def read_exactly(stream: IO[bytes], size: int, path: Path) -> bytes:
    """The next ``size`` bytes.

    Raises:
        FormatError: the file ends before them.
    """
    data = stream.read(size)
    if len(data) < size:
        raise FormatError("cut short", "is its download complete?", path=path)
    return data


def copy_exactly(stream: IO[bytes], size: int, path: Path) -> BinaryIO:
    """Unpacks the rest of a file, which must have ``size`` bytes, to a temporary file.

    Raises:
        FormatError: fewer or more bytes than its header says.
    """
    out = scratch_file()
    left = size
    while left:
        data = read_exactly(stream, min(left, _BLOCK_BYTES), path)
        out.write(data)
        left -= len(data)
    if stream.read(1):
        raise FormatError("holds more than its header says", path=path)
    out.flush()
    return out


def scratch_file() -> BinaryIO:
    """A temporary file without a name, which is freed with this process and its workers."""
    return cast("BinaryIO", tempfile.TemporaryFile("w+b"))


def is_tar(path: Path) -> bool:
    """Whether a file is a tar, compressed or not."""
    try:
        with open_plain(path) as stream:
            tarfile.TarInfo.frombuf(stream.read(BLOCK_BYTES), "utf-8", "surrogateescape")
    except (tarfile.TarError, InputError):
        return False
    return True


def read_members(path: Path, wanted: Callable[[str], bool], max_bytes: int) -> dict[str, bytes]:
    """Reads files of a small tar, compressed or not, by their names without folders.

    Args:
        path: the archive.
        wanted: whether to read the file of a name.
        max_bytes: limit on the unpacked size of the archive.

    Raises:
        FormatError: not an archive, a damaged one, or a larger one.
        InputError: it cannot be read.
    """
    found: dict[str, bytes] = {}
    with open_plain(path) as stream:
        most = min(max_bytes, most_unpacked(path))

        def read(place: int, size: int) -> bytes:
            if place + size > most:
                raise FormatError("holds more than such an archive does", path=path)
            stream.seek(place)
            return stream.read(size)

        for member in tar_members(read, path):
            name = member.name.rpartition("/")[2]
            if member.is_file and wanted(name):
                found[name] = read(member.place, member.size)
                if len(found[name]) < member.size:
                    raise FormatError("cut short", "is its download complete?", path=path)
        while stream.read(_BLOCK_BYTES):  # up to the checksum at its end
            read(stream.tell(), 0)  # refuses to go beyond the limit
    return found
