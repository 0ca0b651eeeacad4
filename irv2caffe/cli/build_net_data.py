"""Databases of build-net: numbers of images, and nets that do not fit them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from irv2caffe.config import NetOptions
    from irv2caffe.data.inspect.database import Database


_ILSVRC12 = {"train_lmdb": 1_281_167, "val_lmdb": 50_000}


@dataclass(frozen=True)
class DataAtHand:
    """The databases of a net, and what follows from them.

    Attributes:
        folders: of the training and the validation database; None where there is none.
        train: the training database, or None.
        val: the validation database, or None.
        measured: values of NetOptions.
        num_train: name, number and source of the training images, as ``--print-config`` has them.
        num_val: the same of the validation images.
        found: a line for each database that was not named, but is there under the default name.
    """

    folders: tuple[str | None, str | None]
    train: Database | None
    val: Database | None
    measured: dict[str, Any]
    num_train: tuple[str, int, str]
    num_val: tuple[str, int, str]
    found: tuple[str, ...]

    @property
    def classes(self) -> dict[str, Any]:
        """What the training database says of its classes, for build_net."""
        if self.train is None:
            return {}
        return {"class_counts": self.train.class_counts, "class_names": self.train.class_names}


def read_data(
    of_recipe: Mapping[str, Any],
    given: dict[str, Any],
    num_train: int | None,
    num_val: int | None,
) -> DataAtHand:
    """Reads the databases that are given, or that lie under their default names here.

    Args:
        of_recipe: the recipe's values of NetOptions.
        given: options of the command line; ``database`` as a mean is removed.
        num_train: training images, if given.
        num_val: validation images, if given.
    """
    from irv2caffe.data.inspect.database import read_pair, take_means

    stated = {**of_recipe, **given}
    names = {name: stated.get(name) or _here(name, stated) for name in _ILSVRC12}
    train, val = read_pair(*(Path(name) if name else None for name in names.values()))
    measured = take_means(given, train)
    if train is not None:
        measured["num_classes"] = train.num_classes
        if train.channels in {1, 3}:
            measured["channels"] = train.channels
    pairs = list(zip(names.items(), (train, val), strict=True))
    found = [
        f"{folder} is there and is taken: {database.num_records:,} images"
        for (name, folder), database in pairs
        if database is not None and name not in stated
    ]
    if train is not None and val is None and num_val is None:
        found.append(
            f"no validation database is there or given: {_ILSVRC12['val_lmdb']:,} images are "
            "assumed; make-lmdb --val-fraction 0.1 makes one"
        )
    first, second = names.values()
    return DataAtHand(
        (first, second),
        train,
        val,
        measured,
        _num_images("num_train_images", num_train, train, _ILSVRC12["train_lmdb"]),
        _num_images("num_val_images", num_val, val, _ILSVRC12["val_lmdb"]),
        tuple(found),
    )


def _here(name: str, stated: Mapping[str, Any]) -> str | None:
    """The database that the net will read by default, if it is in this folder."""
    from irv2caffe.config import NetOptions

    default: str = getattr(NetOptions, name)
    return default if name not in stated and Path(default, "data.mdb").is_file() else None


def _num_images(
    name: str, given: int | None, database: Database | None, default: int
) -> tuple[str, int, str]:
    """A number of images and where it came from, as a row of ``--print-config``."""
    if given is not None:
        return name, given, "command line"
    known = database.num_records if database is not None else None
    return (name, default, "default") if known is None else (name, known, "database")


def refuse_misfit(folder: str | None, database: Database | None, net: NetOptions) -> None:
    """Refuses a net that Caffe stops at, or reads foreign memory for, with this database.

    Only the first record and the labels are compared; check compares more.

    Raises:
        UsageError: they do not fit.
    """
    from irv2caffe.net.input_sizes import largest_crop

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
        larger = f"build it again with make-lmdb --resize {net.crop * 328 // 299}"
        fits = largest_crop(net, min(height, width))
        raise UsageError(
            f"--crop {net.crop}: {folder} holds images of {width}x{height}",
            f"--crop {fits} fits them; or {larger}"
            if fits
            else f"{larger}, or take --variant auto",
        )
