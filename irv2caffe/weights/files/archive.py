"""Zip archives, which PyTorch's and Keras's files are."""

from __future__ import annotations

import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from irv2caffe.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def is_zip(path: Path) -> bool:
    """Whether a file ends as archives do.

    Raises:
        FormatError: damaged.
        OSError: it cannot be read.
    """
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile as error:
        raise FormatError(f"a damaged archive: {error}", path=path) from error


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive for reading.

    Raises:
        FormatError: damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FormatError:
        raise
    except Exception as error:  # what zipfile meets in a torn one: half a dozen types
        raise FormatError("a damaged archive", "was its download complete?", path=path) from error


def refuse_packed(members: Iterable[zipfile.ZipInfo], path: Path) -> None:
    """Refuses members that would take more room than the file: both libraries only store them.

    Raises:
        FormatError: compressed, or larger than the file together.
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
