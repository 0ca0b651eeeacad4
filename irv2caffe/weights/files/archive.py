"""Opens zip archives, the container of PyTorch's and Keras's files."""

from __future__ import annotations

import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from irv2caffe.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def is_zip(path: Path) -> bool:
    """Whether a file is a zip archive.

    Raises:
        FormatError: a damaged archive.
        OSError: the file cannot be read.
    """
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile as error:
        raise FormatError(f"a damaged archive: {error}", path=path) from error


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens an archive for reading.

    Raises:
        FormatError: a damaged archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FormatError:
        raise
    except Exception as error:  # zipfile raises half a dozen types for a damaged one
        raise FormatError("a damaged archive", "was its download complete?", path=path) from error


def refuse_packed(members: Iterable[zipfile.ZipInfo], path: Path) -> None:
    """Refuses archives that unpack to more than their own size; both libraries never compress.

    Raises:
        FormatError: a compressed member, or members larger than the file together.
    """
    total = 0
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            name = member.filename[-80:]
            hint = "unpack it, and pack it again without compression"
            raise FormatError(f"{name} in it is compressed", hint, path=path)
        total += member.file_size
    if total > path.stat().st_size:
        raise FormatError("a damaged archive", "it says that it holds more than it has", path=path)
