"""Databases of build-net: numbers of images, and nets that do not fit them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from irv2caffe.config import NetOptions
    from irv2caffe.data.inspect.database import Database


def num_images(
    name: str, given: int | None, database: Database | None, default: int
) -> tuple[str, int, str]:
    """A number of images and where it came from, as a row of ``--print-config``."""
    if given is not None:
        return name, given, "command line"
    known = database.num_records if database is not None else None
    return (name, default, "default") if known is None else (name, known, "database")


def classes_of(database: Database | None) -> dict[str, Any]:
    """What the training database says of its classes, for build_net."""
    if database is None:
        return {}
    return {"class_counts": database.class_counts, "class_names": database.class_names}


def refuse_misfit(folder: str | None, database: Database | None, net: NetOptions) -> None:
    """Refuses a net that Caffe stops at, or reads foreign memory for, with this database.

    Only the first record and the labels are compared; check compares more.

    Raises:
        UsageError: they do not fit.
    """
    if database is None:
        return
    channels, height, width = database.shape
    if (database.min_label or 0) < 0:
        raise UsageError(
            f"{folder} has label {database.min_label}; labels count from 0",
            "Caffe would read memory that is not the net's, without an error; irv2caffe "
            f"inspect-lmdb {folder} counts them",
        )
    if database.highest_label >= net.num_classes:
        raise UsageError(
            f"{folder} has label {database.highest_label}, too high for "
            f"--num-classes {net.num_classes}",
            "Caffe would read memory that is not the net's, without an error",
        )
    if database.height_first:
        raise UsageError(
            f"{folder} says that its images have {channels} channels, a height of "
            f"{height} and a width of {width}",
            "they are stored height x width x channels, Caffe reads channels x height x width: "
            "transpose(2, 0, 1) before they are written, or build it with make-lmdb",
        )
    if channels != net.channels:
        raise UsageError(
            f"{folder} holds images of {channels} channel(s), the net takes {net.channels}",
            "make-lmdb makes gray images coloured, and with --gray all gray; build-net --channels "
            "1 takes gray ones",
        )
    if net.crop > min(height, width):
        raise UsageError(
            f"--crop {net.crop}: {folder} holds images of {width}x{height}",
            f"build it again with make-lmdb --resize {net.crop * 328 // 299}, or crop less",
        )
