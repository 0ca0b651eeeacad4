"""The report of inspect-lmdb: counts, shapes, classes, order, decoding and mean of a database."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.records.class_table import read_names, some
from irv2caffe.data.records.database_files import LABELS, read_manifest
from irv2caffe.data.records.datum import holds_its_image, is_height_first, read_head
from irv2caffe.data.records.decode import encoding_of, stored_pixels
from irv2caffe.data.records.depth import is_dark, words_on_dark_records
from irv2caffe.data.records.headers import AFTER_CAFFE
from irv2caffe.data.records.mean import MeanSums, UnitSums, shape_of
from irv2caffe.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from irv2caffe.data.lmdb_store import DatabaseReader

_MAX_LISTED = 20
_SUMS_OF = 4096
# A batch of mixed records shows nearly as many classes as one drawn blindly.
_WELL_MIXED = 0.9


@dataclass
class Examination:
    """What a database holds.

    Attributes:
        database: its folder.
        num_records: images.
        size_bytes: of ``data.mdb``.
        map_bytes: that Caffe will map.
        encodings: records by how they hold their images: ``raw``, ``jpg``, ``png``, ``float``.
        shapes: records by ``channels x height x width``; of compressed ones, those decoded.
        num_labels: different labels.
        min_label: the smallest, or None without any.
        max_label: the largest.
        num_unlabelled: records without a label, which Caffe reads as label 0.
        num_classes: lines of the class table, else ``max_label`` plus one.
        images_per_label: records of each label.
        class_names: of the class table; empty without one.
        batch: records that ``classes_per_batch`` looks at.
        classes_per_batch: different classes in so many neighbours, on average.
        classes_if_mixed: the same for records in random order.
        num_decoded: records that were decoded.
        undecodable: keys of those that were not, and why; some of them.
        num_undecodable: how many they are.
        mean_values: of B, G, R (or gray) over the decoded records; None without a common one.
        is_whole: all records were decoded, not a sample.
        findings: errors, one line each.
        notes: for the user, one line each.
    """

    database: str
    num_records: int = 0
    size_bytes: int = 0
    map_bytes: int = 0
    encodings: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, int] = field(default_factory=dict)
    num_labels: int = 0
    min_label: int | None = None
    max_label: int | None = None
    num_unlabelled: int = 0
    num_classes: int = 0
    images_per_label: dict[str, int] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    batch: int = 0
    classes_per_batch: float = 0.0
    classes_if_mixed: float = 0.0
    num_decoded: int = 0
    undecodable: list[tuple[str, str]] = field(default_factory=list)
    num_undecodable: int = 0
    mean_values: list[float] | None = None
    is_whole: bool = False
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def examine(
    folder: Path,
    *,
    batch: int = 32,
    sample: int | None = 1000,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Examination:
    """Reads the head of every record, and decodes a sample of them or all.

    Args:
        folder: of the database.
        batch: neighbours whose classes are counted, for the order of the records.
        sample: records to decode; None decodes all.
        progress: called with (done, all) of the records that are read, then decoded.

    Raises:
        MissingInputError: no such database.
        FormatError: no LMDB, or a damaged one.
    """
    found = Examination(str(folder), batch=batch)
    with open_reader(folder) as reader:
        info = reader.info()
        found.num_records = info.num_records
        found.size_bytes, found.map_bytes = info.size_bytes, info.map_bytes
        wanted = found.num_records if sample is None else min(sample, found.num_records)
        total = found.num_records + wanted
        labels = _read_heads(reader, found, lambda done: progress(done, total))
        _decode(reader, found, wanted, lambda done: progress(found.num_records + done, total))
    _count_classes(folder, found, labels)
    _look_at_order(found, labels)
    _judge(folder, found)
    return found


def _read_heads(
    reader: DatabaseReader, found: Examination, progress: Callable[[int], None]
) -> array[int]:
    """Labels in the order of the records."""
    labels = array("q")
    encodings: Counter[str] = Counter()
    shapes: Counter[str] = Counter()
    num_height_first = 0
    for number, (key, value) in enumerate(reader.views(), 1):
        try:
            head = read_head(value)
        except FormatError as error:
            encodings["not a Datum"] += 1
            _note_bad(found, bytes(key), error.message)
            continue
        encodings[encoding_of(head, value)] += 1
        if not head.is_encoded:
            shapes[_shape_words(head.shape)] += 1
            num_height_first += is_height_first(head)
            if not holds_its_image(head):
                _note_bad(found, bytes(key), "its sizes and its values do not fit together")
        if head.label is None:
            found.num_unlabelled += 1
        labels.append(head.label or 0)
        progress(number)
    if num_height_first:
        found.findings.append(
            f"{num_height_first:,} record(s) are stored height x width x channels: Caffe takes the "
            "first for the channels; transpose(2, 0, 1) before they are written, or build it with "
            "make-lmdb"
        )
    found.encodings = dict(encodings.most_common())
    found.shapes = dict(shapes.most_common())
    return labels


def _note_bad(found: Examination, key: bytes, why: str) -> None:
    found.num_undecodable += 1
    if len(found.undecodable) < _MAX_LISTED:
        found.undecodable.append((key.decode("utf-8", "replace"), why))


def _decode(
    reader: DatabaseReader, found: Examination, wanted: int, progress: Callable[[int], None]
) -> None:
    """Decodes so many records for their shapes and their mean."""
    sums, mean = UnitSums(), MeanSums()
    shapes: Counter[str] = Counter()
    largest: int | None = None
    found.is_whole = wanted >= found.num_records
    for key, value in reader.sample(wanted):
        found.num_decoded += 1
        progress(found.num_decoded)
        try:
            is_encoded = read_head(value).is_encoded
            pixels = stored_pixels(value)
        except FormatError:
            continue  # counted already
        except ValueError as error:
            _note_bad(found, key, str(error))
            continue
        if is_encoded:
            shapes[_shape_words(shape_of(pixels))] += 1
        if pixels.dtype != "u1" and is_encoded:
            found.findings.append(f"record {key!r} has {pixels.dtype} values, Caffe takes uint8")
        if pixels.dtype == "u1":
            largest = max(largest or 0, int(pixels.max()))
        sums.add(pixels)
        if found.num_decoded % _SUMS_OF == 0:
            mean.add(sums.taken(), _SUMS_OF)
    mean.add(sums.taken(), found.num_decoded % _SUMS_OF)
    found.mean_values = mean.mean_values()
    found.shapes |= dict(shapes.most_common())
    if largest is not None and is_dark(largest):
        # Single planes may be maps of labels, as segmentation is trained with.
        is_map = set(found.encodings) == {"raw"} and all(key[:2] == "1 " for key in found.shapes)
        (found.notes if is_map else found.findings).append(words_on_dark_records(largest))
    del found.findings[_MAX_LISTED:]


def _count_classes(folder: Path, found: Examination, labels: array[int]) -> None:
    counts = Counter(labels)
    found.images_per_label = {str(label): counts[label] for label in sorted(counts)}
    found.num_labels = len(counts)
    if counts:
        found.min_label, found.max_label = min(counts), max(counts)
        found.num_classes = found.max_label + 1
    if not (folder / LABELS).is_file():
        return
    try:
        names = read_names(folder / LABELS)
    except FormatError as error:
        found.notes.append(error.message)
        return
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        found.notes.append(f"labels.txt has different classes of the same name: {some(twice)}")
    if names:
        found.class_names, found.num_classes = list(names), len(names)


def _look_at_order(found: Examination, labels: array[int]) -> None:
    """Compares the classes in neighbouring records with those in randomly drawn ones."""
    size = min(found.batch, len(labels))
    if size < 2:
        return
    starts = range(0, len(labels) - size + 1, size)
    found.classes_per_batch = _mean([len(set(labels[at : at + size])) for at in starts])
    rng = random.Random(0)  # noqa: S311
    drawn = [len(set(rng.sample(labels, size))) for _ in range(500)]
    found.classes_if_mixed = _mean(drawn)


def _mean(values: list[int]) -> float:
    return round(sum(values) / len(values), 2)


def _judge(folder: Path, found: Examination) -> None:
    """Adds findings, which are errors, and notes."""
    findings, notes = found.findings, found.notes
    if found.num_records == 0:
        findings.append("no records: Caffe dies of that when it starts")
        return
    if found.num_undecodable:
        findings.append(f"{found.num_undecodable:,} record(s) cannot be decoded")
    if found.num_unlabelled:
        findings.append(
            f"{found.num_unlabelled:,} record(s) have no label; Caffe takes them for class 0"
        )
    if found.min_label is not None and found.min_label < 0:
        findings.append(f"label {found.min_label} is negative: Caffe reads foreign memory with it")
    if found.class_names and (found.max_label or 0) >= len(found.class_names):
        findings.append(
            f"label {found.max_label}, but labels.txt has {len(found.class_names)} classes"
        )
    channels = {shape.partition(" ")[0] for shape in found.shapes}
    if len(channels) > 1:
        findings.append(
            f"records of {' and '.join(sorted(channels))} channels: Caffe dies at the first other "
            "one, unless transform_param has force_color or force_gray"
        )
    foreign = sorted(AFTER_CAFFE & set(found.encodings))
    if foreign:
        findings.append(f"{', '.join(foreign)}: Caffe's OpenCV cannot read such records")
    if len(found.shapes) > 1:
        notes.append("records of several sizes: training needs crop_size")
    missing = found.num_classes - found.num_labels
    if missing > 0:
        notes.append(f"{missing:,} of {found.num_classes:,} classes have no record")
    if found.num_labels > 1 and found.classes_per_batch < _WELL_MIXED * found.classes_if_mixed:
        notes.append(
            f"not shuffled: {found.classes_per_batch:.1f} classes in {found.batch} neighbours, "
            f"{found.classes_if_mixed:.1f} if mixed; Caffe reads them in this order"
        )
    manifest = read_manifest(folder)
    if manifest.get("num_images", found.num_records) != found.num_records:
        findings.append(f"manifest.json speaks of {manifest['num_images']} records")


def _shape_words(shape: tuple[int, int, int]) -> str:
    return " x ".join(str(side) for side in shape)
