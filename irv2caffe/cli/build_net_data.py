"""What databases say to build-net."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from irv2caffe.config import NetOptions
    from irv2caffe.data.inspect.database import DatabaseSummary


def num_images(
    name: str, told: int | None, measured: int | None, default: int
) -> tuple[str, int, str]:
    """A number of images and where it came from, as a row of ``--print-config``."""
    if told is not None:
        return name, told, "command line"
    return (name, default, "default") if measured is None else (name, measured, "database")


def refuse_misfit(database: str, found: DatabaseSummary, net: NetOptions) -> None:
    """Refuses a net that Caffe stops on, or reads foreign memory for, at this database.

    Only what the first record and the labels say is looked at; check looks at more.
    """
    size = f"{found.width}x{found.height}"
    if found.min_label < 0:
        raise UsageError(
            f"{database} has label {found.min_label}; labels count from 0",
            "Caffe would read memory that is not the net's, without an error; irv2caffe "
            f"inspect-lmdb {database} counts them",
        )
    if found.max_label >= net.num_classes:
        raise UsageError(
            f"{database} has label {found.max_label}, too high for --num-classes {net.num_classes}",
            "Caffe would read memory that is not the net's, without an error",
        )
    if found.height_first:
        raise UsageError(
            f"{database} says that its images have {found.channels} channels, a height of "
            f"{found.height} and a width of {found.width}",
            "they are stored height x width x channels, Caffe reads channels x height x width: "
            "transpose(2, 0, 1) before they are written, or build it with make-lmdb",
        )
    if found.channels != 3:
        raise UsageError(
            f"{database} holds images of {found.channels} channel(s), the net takes 3",
            "build it again; make-lmdb makes gray images coloured unless --gray",
        )
    if net.crop > min(found.height, found.width):
        raise UsageError(
            f"--crop {net.crop}: {database} holds images of {size}",
            f"build it again with make-lmdb --resize {net.crop * 328 // 299}, or crop less",
        )


def database_means(told: dict[str, Any], database: str | None) -> dict[str, Any]:
    """Moves the means that are to be the database's out of what was told, with their values."""
    asked = [name for name in ("mean_value", "mean_file") if told.get(name) == "database"]
    if not asked:
        return {}
    from irv2caffe.data.inspect.database import database_mean

    (name,) = asked
    flag = f"--{name.replace('_', '-')} database"
    del told[name]
    if not database:
        raise UsageError(f"{flag} needs --train-lmdb")
    found = database_mean(Path(database))
    value = None if found is None else found.values if name == "mean_value" else found.file
    if value is None or found is None or len(found.values) != 3:
        raise UsageError(
            f"{flag}: {database} has no such mean of three colours",
            "make-lmdb computes one, unless --mean none; or give numbers or a file",
        )
    return {name: value if isinstance(value, tuple) else str(value)}
