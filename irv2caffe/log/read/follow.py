"""Where lines come from: files plain and packed, pipes, and files that grow and are rotated."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import select
import stat
import sys
import zlib
from typing import IO, TYPE_CHECKING, Literal, Protocol

from irv2caffe.errors import FormatError, InputError, MissingInputError
from irv2caffe.system import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_PIECE_BYTES = 1 << 21
_PACKED: dict[bytes, Callable[[Path, Literal["rb"]], IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,  # type: ignore[dict-item]
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_MAGIC_BYTES = 5
STDIN = "-"


class Sink(Protocol):
    """What takes the pieces of a file: a :class:`~irv2caffe.log.read.reader.Reader`."""

    def feed_bytes(self, data: bytes | memoryview) -> None:
        """Takes the next piece, which is overwritten afterwards."""

    def finish(self) -> None:
        """The file ends."""

    @property
    def has_enough(self) -> bool:
        """Whether the rest is not to be read."""


def resolve_log(path: Path) -> Path:
    """The log that a path means: itself, or ``train.log`` in a run folder.

    Raises:
        MissingInputError: nothing there.
    """
    if path.is_dir():
        inside = path / "train.log"
        if not inside.is_file():
            raise MissingInputError(f"{path} holds no train.log", "give a log or a run folder")
        return inside
    if str(path) != STDIN and not path.exists():
        raise MissingInputError(f"{path}: no such log", "give a log or a run folder")
    return path


def read_into(sink: Sink, path: Path) -> None:
    """Reads a log to its end, in pieces; of a torn packed file, what can be unpacked.

    Raises:
        MissingInputError: nothing there.
        FormatError: it is packed and cannot be unpacked at all.
        InputError: it cannot be read.
    """
    for piece in pieces(resolve_log(path)):
        sink.feed_bytes(piece)
        if sink.has_enough:
            break
    sink.finish()


def pieces(path: Path) -> Iterator[memoryview]:
    """The bytes of a file, unpacked, a few megabytes at a time in the same memory."""
    piece = memoryview(bytearray(_PIECE_BYTES))
    seen = False
    try:
        with _open(path) as stream:
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
        return length, error  # bz2's way to say that a file is torn
    return length, None


def _open(path: Path) -> IO[bytes]:
    """A stream over a file, unpacked if its first bytes say that it is packed."""
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
        raise FormatError("not a gzip file, in spite of its name", path=path)
    return stream


class Follower:
    """Reads what a file has grown by; goes on in the new file after a rotation.

    Both ways of rotating are followed: a new file under the old name, and the same file emptied.
    """

    def __init__(self, sink: Sink, path: Path) -> None:
        """Nothing is read yet.

        Raises:
            MissingInputError: nothing there.
        """
        self._sink = sink
        self._path = resolve_log(path)
        self._stream: IO[bytes] | None = None
        self._ended = False

    def poll(self) -> bool:
        """Reads what is new, without waiting; whether there was anything.

        Raises:
            InputError: it cannot be read.
        """
        try:
            return self._poll()
        except OSError as error:
            raise InputError(f"cannot read {self._path}: {error.strerror or error}") from error

    def _poll(self) -> bool:
        if self._ended:
            return False
        if self._stream is None:
            self._stream = _open(self._path)
        if not hasattr(self._stream, "raw"):  # packed files do not grow
            read_into(self._sink, self._path)
            self._ended = True
            return True
        status = os.fstat(self._stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            return self._drain_pipe(self._stream)
        grown = self._read_on(self._stream)
        return self._rotated(self._stream, status) or grown

    def _read_on(self, stream: IO[bytes]) -> bool:
        grown = False
        while not self._sink.has_enough and (piece := stream.read(_PIECE_BYTES)):
            self._sink.feed_bytes(piece)
            grown = True
        self._ended |= self._sink.has_enough
        return grown

    def _rotated(self, stream: IO[bytes], old: os.stat_result) -> bool:
        try:
            new = self._path.stat()
        except FileNotFoundError:
            return False  # between two files
        if (new.st_ino, new.st_dev) != (old.st_ino, old.st_dev):
            self._read_on(stream)  # what came between our last look and the rotation
            self._sink.finish()
            stream.close()
            self._stream = _open(self._path)
            return self._poll()
        if new.st_size < stream.tell():
            self._sink.finish()
            stream.seek(0)
            return self._poll()
        return False

    def _drain_pipe(self, stream: IO[bytes]) -> bool:
        grown = False
        while select.select([stream], [], [], 0)[0]:
            piece = os.read(stream.fileno(), _PIECE_BYTES)
            if not piece or self._sink.has_enough:
                self._sink.finish()
                self._ended = True
                return grown
            self._sink.feed_bytes(piece)
            grown = True
        return grown

    @property
    def ended(self) -> bool:
        """Whether nothing can follow: a pipe that was closed, a packed file."""
        return self._ended

    def close(self) -> None:
        """Closes the file."""
        if self._stream is not None:
            self._stream.close()
