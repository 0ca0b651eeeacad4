"""Log files, plain and packed, and pipes, as pieces of bytes."""

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

PIECE_BYTES = 1 << 21
_PACKED: dict[bytes, Callable[[Path, Literal["rb"]], IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,  # type: ignore[dict-item]
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_MAGIC_BYTES = 5
STDIN = "-"


def resolve_log(path: Path) -> Path:
    """The log that a path means: itself, or ``train.log`` in a run folder.

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


def pieces(path: Path) -> Iterator[memoryview]:
    """The unpacked bytes of a log, a few megabytes at a time, in memory that is used again.

    Raises:
        FormatError: it is packed and cannot be unpacked at all.
        InputError: it cannot be read.
    """
    piece = memoryview(bytearray(PIECE_BYTES))
    seen = False
    try:
        with open_log(path) as stream:
            length = len(piece)
            while length == len(piece):
                length, torn = _fill(stream, piece)
                seen = seen or length > 0
                if length:
                    yield piece[:length]
                if torn is not None and not seen:
                    raise FormatError(f"cannot be unpacked: {torn}", path=path) from torn
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _fill(stream: IO[bytes], piece: memoryview) -> tuple[int, Exception | None]:
    """Reads as much as there is room for; less at the end, or where a packed file is torn."""
    length = 0
    try:
        while length < len(piece):
            count = stream.readinto1(piece[length:])  # type: ignore[attr-defined]
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
    """Opens a log; unpacks it if its first bytes are those of a packed file."""
    if str(path) == STDIN:
        if sys.stdin is None:
            raise InputError("standard input is closed")
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    if not path.is_file():
        return path.open("rb")  # a pipe gives its bytes once
    stream = open_regular(path)
    magic = stream.read(_MAGIC_BYTES) or b""  # None: /proc has files that wait
    stream.seek(0)
    for start, unpack in _PACKED.items():
        if magic.startswith(start):
            stream.close()
            return unpack(path, "rb")
    if path.suffix == ".gz":
        stream.close()
        raise FormatError("not a gzip file, despite its name", path=path)
    return stream
