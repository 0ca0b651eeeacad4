"""The device and inode of a source: whether its folder or disk is still the one that was listed."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.errors import InputError

if TYPE_CHECKING:
    from irv2caffe.data.records.items import Source


@dataclass(frozen=True)
class SourceIdentity:
    """The source as it was when its images were listed.

    An image that has disappeared is skipped. A disk that has disappeared ends the build: else the
    database would be a small one that looks complete.

    Attributes:
        root: path of its folder or file.
        device: number of the device that it is on.
        inode: its inode number there. Another disk may be mounted in its place, or none any more.
        has_listed_folders: the images were found by listing folders (not named by a list file),
            so that their folders existed.
    """

    root: str
    device: int
    inode: int
    has_listed_folders: bool

    def check_folder_of(self, name: str) -> None:
        """Finds out whether an image cannot be read because its source has disappeared.

        Args:
            name: path of the image below the root.

        Raises:
            OSError: the source has disappeared.
        """
        self.check()
        folder = os.path.dirname(f"{self.root}/{name}")  # noqa: PTH120
        if self.has_listed_folders and not _has_entries(folder):
            raise OSError(errno.ENOENT, "its folder is gone, or empty now")

    def check(self) -> None:
        """Checks that the root is the same one; images in another one may have the same names.

        Raises:
            OSError: it has disappeared, or is another one.
        """
        try:
            status = os.stat(self.root)  # noqa: PTH116  # names need not be paths of pathlib's
        except OSError:
            status = None
        if status is None or (status.st_dev, status.st_ino) != (self.device, self.inode):
            raise OSError(errno.ENOENT, f"{self.root} is gone, or another one than before")


def identify(source: Source) -> SourceIdentity:
    """The identity of a source, to compare with later.

    Raises:
        InputError: it cannot be read.
    """
    root = source.root.absolute()
    try:
        status = root.stat()
    except OSError as error:
        raise InputError(f"cannot read {root}: {error.strerror}") from error
    return SourceIdentity(str(root), status.st_dev, status.st_ino, source.kind == "folders")


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
