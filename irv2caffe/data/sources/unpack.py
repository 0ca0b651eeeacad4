"""Compressed files of known content, unpacked within bounds into a file without a name."""

from __future__ import annotations

import gzip
import tarfile
import tempfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from irv2caffe.errors import FormatError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAX_BYTES = 16 << 30
_BLOCK_BYTES = 1 << 20
_MAX_MEMBERS = 10_000


@contextmanager
def open_plain(path: Path) -> Iterator[IO[bytes]]:
    """A file, through gzip where it is gzipped; what goes wrong in reading is a FormatError.

    Raises:
        FormatError: torn or broken.
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not is_gzip:
                yield raw
                return
            with gzip.GzipFile(fileobj=raw) as stream:
                yield cast("IO[bytes]", stream)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(
            f"cannot be unpacked: {error}", "is its download complete?", path=path
        ) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def read_exactly(stream: IO[bytes], size: int, path: Path) -> bytes:
    """The next bytes; a file that ends before them is refused.

    Raises:
        FormatError: it is cut short.
    """
    data = stream.read(size)
    if len(data) < size:
        raise FormatError("cut short", "is its download complete?", path=path)
    return data


def copy_exactly(stream: IO[bytes], size: int, path: Path) -> BinaryIO:
    """Unpacks so many bytes, and refuses a file that holds others.

    Raises:
        FormatError: fewer or more bytes than its header says.
    """
    if size > MAX_BYTES:
        raise FormatError(f"would unpack to {size / 1e9:,.0f} GB", path=path)
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
    """A file that is gone when this process and its workers are."""
    return cast("BinaryIO", tempfile.TemporaryFile("w+b"))


def read_members(path: Path, wanted: Callable[[str], bool], max_bytes: int) -> dict[str, bytes]:
    """Files of a small archive, compressed or not, by their names without folders.

    Args:
        path: the archive.
        wanted: whether a name is asked for.
        max_bytes: for each of them.

    Raises:
        FormatError: no archive, a torn one, or one with files larger than they should be.
        InputError: it cannot be read.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|*") as archive:
            for number, info in enumerate(archive):
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                name = info.name.rpartition("/")[2]
                if number > _MAX_MEMBERS or info.size > max_bytes or info.issparse():
                    raise FormatError("holds more than such an archive does", path=path)
                if info.isreg() and wanted(name):
                    stream = archive.extractfile(info)
                    found[name] = stream.read(max_bytes) if stream is not None else b""
    except (tarfile.TarError, EOFError, zlib.error, ValueError, TypeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            f"a broken archive: {error}", "is its download complete?", path=path
        ) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return found
