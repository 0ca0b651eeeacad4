"""Reads Keras's HDF5 files, and those inside ``.keras`` archives."""

from __future__ import annotations

import io
from typing import IO, TYPE_CHECKING, Any

from irv2caffe.errors import FormatError
from irv2caffe.weights.files.archive import is_zip, open_zip, refuse_packed
from irv2caffe.weights.files.extras import needed
from irv2caffe.weights.tensors import StoredArray

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from numpy.typing import NDArray

_IN_ARCHIVE = "model.weights.h5"
_MAX_DEPTH = 100
_LENGTHS_AT = 26  # offset in a member's local header


def read_hdf5(path: Path, stack: ExitStack) -> dict[str, StoredArray]:
    """The data sets of a file, by their path in it.

    Links to other files are not followed; values stored in other files are refused.

    Args:
        path: an ``.h5`` file, or a ``.keras`` archive.
        stack: keeps the file open until the arrays have been read.

    Raises:
        MissingExtraError: h5py is not installed.
        FormatError: damaged, or not HDF5.
    """
    with needed("h5py", "reading an .h5 file"):
        import h5py
    arrays: dict[str, StoredArray] = {}

    def visit(name: str | bytes, item: Any) -> None:
        if isinstance(name, bytes):  # where it is not UTF-8
            name = name.decode("utf-8", "backslashreplace")
        if name.count("/") > _MAX_DEPTH:  # to find each by its path takes the square of the depth
            raise FormatError("its groups are nested too deeply", path=path)
        if isinstance(item, h5py.Dataset):
            arrays[name] = _raw(name, item, path)

    try:
        file = stack.enter_context(h5py.File(_opened(path, stack), "r"))
        file.visititems(visit)  # follows no soft and no external links
    except FormatError:
        raise
    except Exception as error:  # the library maps its own to a dozen types
        raise FormatError(
            "not an HDF5 file that can be read", "is it cut short?", path=path
        ) from error
    return arrays


def _opened(path: Path, stack: ExitStack) -> Path | IO[bytes]:
    """What h5py opens: the file, or the uncompressed HDF5 member of an archive."""
    if not is_zip(path):
        return path
    with open_zip(path) as archive:
        if _IN_ARCHIVE not in archive.namelist():
            raise FormatError(f"an archive without {_IN_ARCHIVE}", path=path)
        member = archive.getinfo(_IN_ARCHIVE)
        refuse_packed([member], path)
        with archive.open(member) as content:
            while content.read(1 << 20):  # zipfile compares the checksum at the end
                pass
    raw = stack.enter_context(path.open("rb", buffering=0))
    raw.seek(member.header_offset + _LENGTHS_AT)
    lengths = raw.read(4)  # of the name and the extra field, which come before the content
    start = member.header_offset + _LENGTHS_AT + 4
    start += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    return stack.enter_context(io.BufferedReader(_Window(raw, start, member.file_size)))


class _Window(io.RawIOBase):
    """A part of a file as a seekable stream; zipfile's rereads from the start to go back."""

    def __init__(self, file: io.FileIO, start: int, size: int) -> None:
        super().__init__()
        self._file, self._start, self._size, self._place = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._place))
        self._file.seek(self._start + self._place)
        count = self._file.readinto(memoryview(buffer)[:wanted]) or 0
        self._place += count
        return count


def _raw(name: str, dataset: Any, path: Path) -> StoredArray:
    if dataset.external or dataset.is_virtual:
        raise FormatError(f"the values of {name} lie in another file", path=path)

    def read() -> NDArray[Any]:
        try:
            array: NDArray[Any] = dataset[()]
        except Exception as error:
            raise FormatError(f"{name} cannot be read", "is it cut short?", path=path) from error
        return array

    return StoredArray(tuple(dataset.shape or ()), str(dataset.dtype), read)
