"""Reads plain and compressed log files and pipes in chunks of bytes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import sys
import zlib
from typing import IO, TYPE_CHECKING, Literal

from irv2caffe.errors import FormatError, InputError, MissingInputError
from irv2caffe.system import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHUNK_BYTES = 1 << 21
_COMPRESSED: dict[bytes, Callable[[Path, Literal["rb"]], IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,  # type: ignore[dict-item]
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_MAGIC_BYTES = 5
STDIN = "-"


def resolve_log(path: Path) -> Path:
    """The log at a path: the path itself, or ``train.log`` in a run folder.

    Raises:
        MissingInputError: there is no such log.
    """
    if path.is_dir():
        inside = path / "train.log"
        if not inside.is_file():
            raise MissingInputError(f"{path} has no train.log", "give a log or a run folder")
        return inside
    if str(path) != STDIN and not path.exists():
        raise MissingInputError(f"{path}: no such log", "give a log or a run folder")
    return path


def read_chunks(path: Path) -> Iterator[memoryview]:
    """The uncompressed bytes of a log, a few megabytes at a time, in a reused buffer.

    Raises:
        FormatError: it is compressed, and no part can be uncompressed.
        InputError: it cannot be read.
    """
    chunk = memoryview(bytearray(CHUNK_BYTES))
    has_data = False
    try:
        with open_log(path) as stream:
            length = len(chunk)
            while length == len(chunk):
                length, torn = _fill(stream, chunk)
                has_data = has_data or length > 0
                if length:
                    yield chunk[:length]
                if torn is not None and not has_data:
                    raise FormatError(f"cannot be uncompressed: {torn}", path=path) from torn
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _fill(stream: IO[bytes], chunk: memoryview) -> tuple[int, Exception | None]:
    """Fills a buffer; reads less at the end, or where a compressed file is torn."""
    length = 0
    try:
        while length < len(chunk):
            count = stream.readinto1(chunk[length:])  # type: ignore[attr-defined]
            if not count:
                break
            length += count
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        return length, error
    except OSError as error:
        if error.errno is not None:
            raise
        return length, error  # how bz2 reports a torn file
    return length, None


def open_log(path: Path) -> IO[bytes]:
    """Opens a log; uncompresses it if its first bytes are those of a compressed file."""
    if str(path) == STDIN:
        if sys.stdin is None:
            raise InputError("standard input is closed")
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    if not path.is_file():
        return path.open("rb")  # the bytes of a pipe can be read only once
    stream = open_regular(path)
    magic = stream.read(_MAGIC_BYTES) or b""  # None for files in /proc that would block
    stream.seek(0)
    for start, unpack in _COMPRESSED.items():
        if magic.startswith(start):
            stream.close()
            return unpack(path, "rb")
    if path.suffix == ".gz":
        stream.close()
        raise FormatError("not a gzip file, despite its name", path=path)
    return stream
