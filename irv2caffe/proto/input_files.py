"""Reading of input files as bytes, with errors that name the file."""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from typing import TYPE_CHECKING

from irv2caffe.errors import FormatError, MissingInputError, UnreadableError
from irv2caffe.system import open_regular, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def read_input(path: Path, limit_bytes: int) -> bytes:
    """Returns the bytes of a file.

    Raises:
        MissingInputError: not found, or a folder.
        FormatError: larger than ``limit_bytes``.
        UnreadableError: cannot be read.
    """
    with _errors_named(path):
        size = path.stat().st_size
        if size > limit_bytes and path.is_file():
            raise FormatError(f"{size:,} bytes are too many for this kind of file", path=path)
        return read_regular(path, limit_bytes)


def map_binary(path: Path) -> memoryview:
    """Maps a binary protobuf file into memory; its pages are read when they are accessed.

    Raises:
        MissingInputError: not found, or a folder.
        FormatError: empty, or HDF5.
        UnreadableError: cannot be read.
    """
    with _errors_named(path), open_regular(path) as stream:
        refuse_other_formats(stream.peek(len(_HDF5_SIGNATURE)), path)
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def refuse_other_formats(start: bytes, path: Path) -> None:
    """Refuses files that are empty or HDF5, given their first bytes.

    Raises:
        FormatError: empty, or HDF5.
    """
    if not start:
        raise FormatError("empty file", "was its writing interrupted?", path=path)
    if start.startswith(_HDF5_SIGNATURE):
        raise FormatError(
            "an HDF5 snapshot, not a binary one",
            "train with snapshot_format: BINARYPROTO",
            path=path,
        )


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such file", "check the path") from error
    except IsADirectoryError as error:
        raise MissingInputError(f"{path} is a folder, not a file") from error
    except (FormatError, MissingInputError):
        raise
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise UnreadableError(f"cannot be read: {reason}", path=path) from error
