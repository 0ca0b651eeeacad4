"""What build-net and train ask of a database, also of one that somebody else made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from irv2caffe.data.datum import read_head
from irv2caffe.data.layout import LABELS, MEAN_FILE
from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.manifest import read_manifest
from irv2caffe.data.sources.text import read_labels
from irv2caffe.errors import FormatError, InputError

_SAMPLE = 1000


@dataclass(frozen=True)
class DatabaseSummary:
    """What training needs to know of a database.

    Attributes:
        num_records: images.
        channels: of the first image.
        height: of the first image, in pixels.
        width: of the first image, in pixels.
        encoded: whether records hold compressed images.
        max_label: the highest label; from ``manifest.json``, else of a sample of the records.
        num_classes: lines of ``labels.txt``, else ``max_label`` plus one.
    """

    num_records: int
    channels: int
    height: int
    width: int
    encoded: bool
    max_label: int
    num_classes: int


@dataclass(frozen=True)
class DatasetSizes:
    """Numbers of a training and a validation database; None where there is no database."""

    num_train: int | None
    num_val: int | None
    num_classes: int | None


@dataclass(frozen=True)
class DatabaseMean:
    """The mean that make-lmdb computed on the way.

    Attributes:
        values: of B, G, R (or gray), for ``mean_value``.
        file: for ``mean_file``; None where records differ in size.
    """

    values: tuple[float, ...]
    file: Path | None


def summarize_database(folder: Path) -> DatabaseSummary:
    """Reads the first record, the manifest if there is one, else a sample of the labels.

    Raises:
        MissingInputError: no such folder.
        FormatError: no LMDB, or its records are not Datums.
        InputError: no records.
    """
    with open_reader(folder) as reader:
        num_records = len(reader)
        if num_records == 0:
            raise InputError(f"{folder} has no records", "build it again")
        _, value = next(iter(reader))
        shape, encoded = _shape(value, folder)
        manifest = read_manifest(folder)
        if manifest.get("num_images") == num_records and "max_label" in manifest:
            max_label, num_classes = int(manifest["max_label"]), int(manifest["num_classes"])
        else:
            max_label = max(read_head(value).label or 0 for _, value in reader.sample(_SAMPLE))
            num_classes = max_label + 1
    return DatabaseSummary(num_records, *shape, encoded, max_label, num_classes)


def dataset_sizes(train: str | None, val: str | None) -> DatasetSizes:
    """Images and classes of the databases that build-net was given.

    Raises:
        InputError: the two do not have the same class table.
    """
    if train and val:
        _refuse_other_classes(Path(train), Path(val))
    of_train = summarize_database(Path(train)) if train else None
    of_val = summarize_database(Path(val)) if val else None
    return DatasetSizes(
        of_train.num_records if of_train else None,
        of_val.num_records if of_val else None,
        of_train.num_classes if of_train else None,
    )


def _refuse_other_classes(train: Path, val: Path) -> None:
    """The same label must mean the same class in both, where both say what it means."""
    tables = [read_labels(place) for place in (train, val) if (place / LABELS).is_file()]
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


def _shape(value: bytes, folder: Path) -> tuple[tuple[int, int, int], bool]:
    """(channels, height, width) of a record, and whether it is compressed."""
    head = read_head(value)
    if not head.is_encoded:
        if not (head.data[1] or head.num_floats):
            raise FormatError("its records hold no image", "was it made for Caffe?", path=folder)
        return head.shape, False
    from irv2caffe.data.image import UndecodableImageError, decode_record
    from irv2caffe.data.mean import shape_of

    start, size = head.data
    try:
        return shape_of(decode_record(value[start : start + size])), True
    except UndecodableImageError as error:
        raise FormatError(f"its first record: {error}", path=folder) from error
