"""What build-net and train ask of a database, also of one that somebody else made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.data.inspect.sandbox import Guard
from irv2caffe.data.inspect.source_facts import SourceFacts, described_labels
from irv2caffe.data.records.database_files import LABELS, MEAN_FILE, read_manifest
from irv2caffe.errors import FormatError, InputError, Irv2CaffeError

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class DatabaseSummary:
    """What training needs to know of a database.

    Attributes:
        num_records: images.
        channels: of the first image.
        height: of the first image, in pixels.
        width: of the first image, in pixels.
        encoded: whether records hold compressed images.
        min_label: the lowest label that was seen; 0 where ``manifest.json`` tells the labels.
        max_label: the highest label; from ``manifest.json``, else of those that were seen.
        num_classes: lines of ``labels.txt``, else ``max_label`` plus one.
        height_first: the sizes look like height x width x channels.
    """

    num_records: int
    channels: int
    height: int
    width: int
    encoded: bool
    min_label: int
    max_label: int
    num_classes: int
    height_first: bool = False


@dataclass(frozen=True)
class DatasetSizes:
    """Numbers of a training and a validation database; None where there is no database."""

    train: DatabaseSummary | None
    val: DatabaseSummary | None

    @property
    def num_train(self) -> int | None:
        """Training images."""
        return self.train.num_records if self.train else None

    @property
    def num_val(self) -> int | None:
        """Validation images."""
        return self.val.num_records if self.val else None

    @property
    def num_classes(self) -> int | None:
        """Of the training database."""
        return self.train.num_classes if self.train else None


@dataclass(frozen=True)
class DatabaseMean:
    """The mean that make-lmdb computed on the way.

    Attributes:
        values: of B, G, R (or gray), for ``mean_value``.
        file: for ``mean_file``; None where records differ in size.
    """

    values: tuple[float, ...]
    file: Path | None


def read_facts(
    folders: Iterable[Path], *, is_quick: bool = False
) -> dict[Path, SourceFacts | Irv2CaffeError]:
    """Facts of databases, or why there are none, each read once and all in one process aside.

    Args:
        folders: of the databases.
        is_quick: as for :func:`~irv2caffe.data.inspect.source_facts.database_facts`.
    """
    found: dict[Path, SourceFacts | Irv2CaffeError] = {}
    with Guard() as guard:
        for folder in dict.fromkeys(folders):
            try:
                facts = guard.call("database_facts", [folder], {"is_quick": is_quick})
                found[folder] = SourceFacts(**{**facts, "class_names": tuple(facts["class_names"])})
            except Irv2CaffeError as error:
                found[folder] = error
    return found


def summary_of(folder: Path, facts: SourceFacts | Irv2CaffeError) -> DatabaseSummary:
    """What training needs to know, from what was read of a database and from its manifest.

    Raises:
        Irv2CaffeError: it could not be read.
        InputError: no records.
    """
    if isinstance(facts, Irv2CaffeError):
        raise facts
    if facts.kind == "LEVELDB":
        hint = "this is a LevelDB; convert_imageset -backend lmdb makes an LMDB"
        raise FormatError("not an LMDB", hint, path=folder)
    if not facts.num_records:
        raise InputError(f"{folder} has no records", "build it again")
    assert facts.channels is not None
    assert facts.height is not None
    assert facts.width is not None
    lowest, highest = facts.min_label or 0, facts.max_label or 0
    num_classes = highest + 1
    described = described_labels(folder, facts.num_records)
    if described is not None:
        highest, num_classes = max(highest, described[0]), described[1]
    return DatabaseSummary(
        facts.num_records,
        facts.channels,
        facts.height,
        facts.width,
        bool(facts.encoded),
        lowest,
        highest,
        num_classes,
        facts.height_first,
    )


def summarize_database(folder: Path) -> DatabaseSummary:
    """Reads the first record and the manifest if there is one, else a sample of the records.

    Raises:
        MissingInputError: no such folder.
        FormatError: no LMDB, a damaged one, or its records are not Datums.
        InputError: no records.
    """
    return summary_of(folder, read_facts([folder], is_quick=True)[folder])


def dataset_sizes(train: str | None, val: str | None) -> DatasetSizes:
    """Images and classes of the databases that build-net was given.

    Raises:
        InputError: the two do not have the same class table.
    """
    if train and val:
        _refuse_other_classes(Path(train), Path(val))
    facts = read_facts([Path(name) for name in (train, val) if name], is_quick=True)
    made = [summary_of(Path(name), facts[Path(name)]) if name else None for name in (train, val)]
    return DatasetSizes(*made)


def _refuse_other_classes(train: Path, val: Path) -> None:
    """The same label must mean the same class in both, where both say what it means."""
    from irv2caffe.data.records.class_table import class_names

    tables = [names for place in (train, val) if (names := class_names(place))]
    if len(tables) == 2 and tables[0] != tables[1]:
        raise InputError(
            f"the classes in {train / LABELS} and {val / LABELS} are not the same",
            f"build the validation database with make-lmdb --labels {train}",
        )


def database_mean(folder: Path) -> DatabaseMean | None:
    """The mean of a database that make-lmdb built; None where there is none."""
    values = read_manifest(folder).get("mean_values")
    if not isinstance(values, list) or not all(isinstance(value, float) for value in values):
        return None
    file = folder / MEAN_FILE
    return DatabaseMean(tuple(values), file if file.is_file() else None)
