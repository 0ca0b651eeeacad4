"""The source as it was when its images were counted, and whether it still is what it was.

An image that is gone is left out; a disk that is gone ends the job, or the database would be a
small one that looks complete.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.records.datum import record_key
from irv2caffe.data.records.items import Skipped
from irv2caffe.data.sources.text import some
from irv2caffe.errors import FormatError, InputError, OutputError, OutputExistsError

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.data.build.plan import Plan
    from irv2caffe.data.build.pool import Pool
    from irv2caffe.data.records.items import Source

_NUM_MADE_AGAIN = 32


class ChangedSourceError(OutputExistsError):
    """An unfinished database holds what its images were, and they are others now."""


@dataclass(frozen=True)
class Seen:
    """What the source was.

    Attributes:
        root: its folder, or its file.
        device: that this was on.
        inode: its number there; another disk may be mounted in its place, or none any more.
        is_walked: images were found, not named by a list, so that their folders were there.
    """

    root: str
    device: int
    inode: int
    is_walked: bool

    def refuse_lost(self, name: str) -> None:
        """Finds out why an image cannot be read.

        Args:
            name: of the image, from the root.

        Raises:
            OSError: because its source is gone.
        """
        self.refuse_other()
        if self.is_walked and not _holds_anything(os.path.dirname(f"{self.root}/{name}")):  # noqa: PTH120
            raise OSError(errno.ENOENT, "its folder is gone, or empty now")

    def refuse_other(self) -> None:
        """Refuses another folder of the same name, whose images may be called the same.

        Raises:
            OSError: saying so.
        """
        if self._is_other():
            raise OSError(errno.ENOENT, f"{self.root} is gone, or another one")

    def refuse_gone(self) -> None:
        """Refuses what was made while the source went away.

        Raises:
            InputError: saying so.
        """
        if self._is_other():
            raise InputError(
                f"{self.root} is gone, or another one than before", "is its disk still there?"
            )

    def _is_other(self) -> bool:
        try:
            status = os.stat(self.root)  # noqa: PTH116  # names need not be paths of pathlib's
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != (self.device, self.inode)


def look_at(source: Source) -> Seen:
    """Remembers a source.

    Raises:
        InputError: it is gone already.
    """
    root = source.root.absolute()
    try:
        status = root.stat()
    except OSError as error:
        raise InputError(f"cannot read {root}: {error.strerror}") from error
    return Seen(str(root), status.st_dev, status.st_ino, source.kind == "folders")


def refuse_changed(plan: Plan, folder: Path, done: int, pool: Pool) -> None:
    """Makes a few of the records again that an unfinished database holds, and compares them.

    Args:
        plan: of the database.
        folder: of the unfinished database.
        done: its records come before this place.
        pool: makes them.

    Raises:
        ChangedSourceError: naming images whose records are others now.
        OutputError: the database is damaged.
    """
    changed, num_compared = [], 0
    try:
        with open_reader(folder) as reader:
            for made in pool.run(plan.sample(_NUM_MADE_AGAIN, done)):
                item, record = made.unit.items[0], made.records[0]
                stored = reader.get(record_key(made.unit.indices[0], item.name))
                if stored is None:  # it was left out then
                    continue
                num_compared += 1
                if isinstance(record, Skipped) or record != stored:
                    changed.append(item.name)
    except FormatError as error:
        raise OutputError(error.message, "--no-resume starts over") from error
    if changed:
        raise ChangedSourceError(
            f"{folder} holds other records than the images give now: {len(changed)} of "
            f"{num_compared} that were made again, {some(changed)}",
            "if the images were changed, or the versions of this program's packages, start over "
            "with --no-resume or --force",
        )


def _holds_anything(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
