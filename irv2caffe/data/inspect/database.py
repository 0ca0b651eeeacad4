"""Database: what a database or an image list holds, as every command gets it.

LMDBs of strangers are read in a guarded process (:mod:`irv2caffe.data.inspect.sandbox`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from irv2caffe.data.inspect.sandbox import Guard
from irv2caffe.data.records.database_files import LABELS
from irv2caffe.errors import FormatError, InputError, Irv2CaffeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    Databases = Mapping[Path, "Database | Irv2CaffeError"]

Order = Literal["shuffled", "sorted", "grouped", "unknown"]


@dataclass(frozen=True)
class Database:
    """Contents of a database or an image list; None where they are not known.

    Attributes:
        num_records: images.
        channels: of the first image.
        height: of the first image, in pixels.
        width: of the first image, in pixels.
        encoded: whether records are compressed images.
        min_label: the lowest label that was read.
        max_label: the highest label that was read.
        order: of the labels along the keys; ``grouped`` is class by class, in any order.
        mixed_channels: gray and colour images side by side, among the records that were read.
        mixed_sizes: images of several sizes, among the records that were read.
        num_looked_at: records whose labels were read.
        num_decoded: compressed images that were decoded: every n-th of those, and any that looks
            broken.
        num_broken: records that hold no image that Caffe could read, among those that were read.
        broken: the key of the first of them, and why.
        height_first: the sizes look like height x width x channels.
        class_names: lines of ``labels.txt``; empty where there is none.
        kind: ``LMDB``, ``LEVELDB``, or ``LIST`` for a list of image files.
        manifest_max_label: the highest label, as ``manifest.json`` has it.
        manifest_num_classes: number of classes, as ``manifest.json`` has it.
        mean_values: means of B, G, R (or gray) that make-lmdb computed; empty without.
        mean_file: path of the mean image that make-lmdb wrote; empty without.
        class_counts: records of each class, by label, as ``manifest.json`` has them or as all
            records were read; empty where neither says. Its sum is ``num_records``.
    """

    num_records: int | None = None
    channels: int | None = None
    height: int | None = None
    width: int | None = None
    encoded: bool | None = None
    min_label: int | None = None
    max_label: int | None = None
    order: Order = "unknown"
    mixed_channels: bool = False
    mixed_sizes: bool = False
    num_looked_at: int = 0
    num_decoded: int = 0
    num_broken: int = 0
    broken: str = ""
    height_first: bool = False
    class_names: tuple[str, ...] = ()
    kind: str = "LMDB"
    manifest_max_label: int | None = None
    manifest_num_classes: int | None = None
    mean_values: tuple[float, ...] = ()
    mean_file: str = ""
    class_counts: tuple[int, ...] = ()

    @property
    def highest_label(self) -> int:
        """The highest label, of the manifest and of the records that were read."""
        return max(self.max_label or 0, self.manifest_max_label or 0)

    @property
    def num_classes(self) -> int:
        """As the manifest has it, else the highest label plus one."""
        known = self.manifest_num_classes
        return self.highest_label + 1 if known is None else known

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the first image."""
        assert self.channels is not None
        assert self.height is not None
        assert self.width is not None
        return self.channels, self.height, self.width

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what the records show, with the number of class names."""
        values = {name: value for name, value in vars(self).items() if name not in _NOT_IN_JSON}
        return {**values, "class_names": len(self.class_names) or None}


_LISTS = ("class_names", "mean_values", "class_counts")
_NOT_IN_JSON = (
    *("manifest_max_label", "manifest_num_classes"),
    *("mean_values", "mean_file", "class_counts"),
)


def read_databases(
    folders: Iterable[Path],
    *,
    known: Databases = MappingProxyType({}),
    is_quick: bool = False,
) -> dict[Path, Database | Irv2CaffeError]:
    """Reads databases, each once and all in one guarded process.

    Args:
        folders: of the databases.
        known: databases that were read already, under any spelling of their folders.
        is_quick: as for :func:`irv2caffe.data.inspect.sample.sample_database`.

    Returns:
        What each holds, or the error that says why it cannot be read.
    """
    by_place = {os.path.realpath(folder): outcome for folder, outcome in known.items()}
    found = {}
    with Guard() as guard:
        for folder in dict.fromkeys(folders):
            place = os.path.realpath(folder)
            if place not in by_place:
                try:
                    values = guard.call("sample_database", [folder], {"is_quick": is_quick})
                    lists = {name: tuple(values[name]) for name in _LISTS}
                    by_place[place] = Database(**{**values, **lists})
                except Irv2CaffeError as error:
                    by_place[place] = error
            found[folder] = by_place[place]
    return found


def usable(folder: Path, outcome: Database | Irv2CaffeError) -> Database:
    """A database that training can read.

    Raises:
        Irv2CaffeError: it could not be read.
        FormatError: a LevelDB.
        InputError: no records.
    """
    if isinstance(outcome, Irv2CaffeError):
        raise outcome
    if outcome.kind == "LEVELDB":
        hint = "this is a LevelDB; convert_imageset -backend lmdb makes an LMDB"
        raise FormatError("not an LMDB", hint, path=folder)
    if not outcome.num_records:
        raise InputError(f"{folder} has no records", "build it again")
    return outcome


def read_database(folder: Path, *, is_quick: bool = True) -> Database:
    """Reads one database that training can read; see :func:`read_databases`.

    Raises:
        MissingInputError: no such folder.
        FormatError: no LMDB, a damaged one, or its records are not Datums.
        InputError: no records.
    """
    return usable(folder, read_databases([folder], is_quick=is_quick)[folder])


def read_pair(
    train: Path | None, val: Path | None, *, is_quick: bool = True
) -> tuple[Database | None, Database | None]:
    """Reads a training and a validation database; None for one that was not given.

    Raises:
        InputError: the two do not have the same class table.
        Irv2CaffeError: as :func:`read_database`.
    """
    found = read_databases([folder for folder in (train, val) if folder], is_quick=is_quick)
    first, second = (usable(path, found[path]) if path else None for path in (train, val))
    tables = [database.class_names for database in (first, second) if database is not None]
    # The same label must mean the same class in both, where both say what it means.
    if len(set(filter(None, tables))) > 1:
        raise InputError(
            f"the classes in {train}/{LABELS} and {val}/{LABELS} are not the same",
            f"build the validation database with make-lmdb --labels {train}",
        )
    return first, second


def take_means(given: dict[str, Any], database: Database | None) -> dict[str, Any]:
    """Replaces ``database`` as mean_value or mean_file by the mean of a database.

    Args:
        given: options of build-net by name; the one that says ``database`` is removed.
        database: the training database; None if none was given.

    Returns:
        The removed option with the database's own mean.

    Raises:
        UsageError: no database, or none with a mean of three channels.
    """
    names = [name for name in ("mean_value", "mean_file") if given.get(name) == "database"]
    if not names:
        return {}
    (name,) = names
    flag = f"--{name.replace('_', '-')} database"
    del given[name]
    if database is None:
        raise UsageError(f"{flag} needs --train-lmdb")
    value = database.mean_values if name == "mean_value" else database.mean_file
    if not value or len(database.mean_values) not in {1, 3}:
        raise UsageError(
            f"{flag}: the training database has no mean of one or three channels",
            "make-lmdb computes one, unless --mean none; or give numbers or a file",
        )
    if name == "mean_value" and len(database.mean_values) == 1:
        return {name: database.mean_values * 3}  # as NetOptions has it for gray images
    return {name: value}


def shorter_side(*databases: Database | None) -> int | None:
    """The shorter side of the images of several databases, in pixels; None if it is not known."""
    sides = []
    for database in databases:
        if database is None or database.mixed_sizes or not (database.height and database.width):
            return None
        sides.append(min(database.height, database.width))
    return min(sides, default=None)
