"""What can be known of a database or an image list in a second, without reading all of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from irv2caffe.data.datum import parse_datum
from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.sources.text import read_names
from irv2caffe.errors import FormatError, InputError
from irv2caffe.system import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

MAX_LIST_BYTES = 1 << 30
_MAX_LOOKED_AT = 20_000
_MAX_BYTES = 200 << 20
_MAX_DECODED = 64
_WINDOW = 64
_FEW = 15  # below this nothing is said of an order


@dataclass(frozen=True)
class SourceFacts:
    """What a database or list holds; None where it does not say.

    Attributes:
        kind: ``LMDB``, ``LEVELDB`` or ``LIST``.
        num_records: images.
        channels: of the first image.
        height: of the first image.
        width: of the first image.
        encoded: whether records are compressed images.
        min_label: the lowest label that was seen.
        max_label: the highest label that was seen.
        order: of the labels along the keys: ``sorted``, ``grouped`` class by class in any order,
            ``shuffled``, or ``unknown``.
        mixed_channels: gray and colour images side by side, among those that were looked at.
        mixed_sizes: images of several sizes, among those that were looked at.
        num_looked_at: records whose labels were seen.
        class_names: lines of ``labels.txt``; empty where there is none.
    """

    kind: str
    num_records: int | None = None
    channels: int | None = None
    height: int | None = None
    width: int | None = None
    encoded: bool | None = None
    min_label: int | None = None
    max_label: int | None = None
    order: str = "unknown"
    mixed_channels: bool = False
    mixed_sizes: bool = False
    num_looked_at: int = 0
    class_names: tuple[str, ...] = ()


def database_facts(folder: Path) -> SourceFacts:
    """Facts of an LMDB: its size, and what a sample of up to 200 MB of its records shows.

    Raises:
        MissingInputError: no such folder.
        FormatError: no database, or its records are not Datums.
    """
    if (folder / "CURRENT").is_file() and not (folder / "data.mdb").is_file():
        return SourceFacts("LEVELDB")
    with open_reader(folder) as reader:
        count = len(reader)
        first = next(iter(reader), None)
        if first is None:
            return SourceFacts("LMDB", num_records=0)
        wanted = max(_WINDOW, min(_MAX_LOOKED_AT, _MAX_BYTES // max(1, len(first[1]))))
        window = [parse_datum(value).label for _, value in islice(reader, _WINDOW)]
        records = reader if count <= wanted else reader.sample(wanted)
        labels, images = _looked_at(value for _, value in records)
    if not images:
        raise FormatError("its records hold no images", "was it made for Caffe?", path=folder)
    shape, encoded = images[0]
    return SourceFacts(
        "LMDB",
        num_records=count,
        channels=shape[0],
        height=shape[1],
        width=shape[2],
        encoded=encoded,
        min_label=min(labels),
        max_label=max(labels),
        order=label_order(labels, window),
        mixed_channels=len({shape[0] for shape, _ in images}) > 1,
        mixed_sizes=len({shape[1:] for shape, _ in images}) > 1,
        num_looked_at=len(labels),
        class_names=_class_names(folder),
    )


def _class_names(folder: Path) -> tuple[str, ...]:
    """The table that make-lmdb writes beside a database."""
    try:
        return read_names(folder / "labels.txt")
    except InputError:
        return ()


def list_facts(path: Path) -> SourceFacts:
    """Facts of the list that an ImageData layer reads: lines of a path, a space and a label.

    Raises:
        FormatError: it cannot be read.
    """
    try:
        data = read_regular(path, MAX_LIST_BYTES)
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", path=path) from error
    lines = data.decode("utf-8", "surrogateescape").splitlines()
    endings = [line.rpartition(" ")[2] for line in lines if line.strip()]
    labels = [int(ending) for ending in endings if _is_int(ending)]
    facts = SourceFacts("LIST", num_records=len(endings), num_looked_at=len(labels))
    if not labels:
        return facts
    order = label_order(labels, labels[:_WINDOW])
    return replace(facts, min_label=min(labels), max_label=max(labels), order=order)


def _is_int(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) < 12


def _looked_at(
    values: Iterable[bytes],
) -> tuple[list[int], list[tuple[tuple[int, int, int], bool]]]:
    """Labels of all records; shapes of all raw ones and of the first few compressed ones."""
    labels: list[int] = []
    images: list[tuple[tuple[int, int, int], bool]] = []
    decoded = 0
    for value in values:
        datum = parse_datum(value)
        labels.append(datum.label)
        if not datum.encoded:
            if datum.channels > 0 and (datum.data or datum.float_data):
                images.append(((datum.channels, datum.height, datum.width), False))
        elif decoded < _MAX_DECODED:
            decoded += 1
            shape = _decoded(datum)
            if shape is not None:
                images.append((shape, True))
    return labels, images


def _decoded(datum: Any) -> tuple[int, int, int] | None:
    from irv2caffe.data.image import UndecodableImageError, decode_record
    from irv2caffe.data.mean import shape_of

    try:
        return shape_of(decode_record(datum.data))
    except UndecodableImageError:
        return None


def label_order(sample: Sequence[int], window: Sequence[int]) -> str:
    """Whether labels come sorted, class by class, or mixed.

    Args:
        sample: labels from all over the source, in its order.
        window: labels of neighbours.
    """
    counts = Counter(sample)
    if len(counts) < 2 or len(window) < 2:
        return "unknown"
    by_chance = sum((count / len(sample)) ** 2 for count in counts.values())
    falls = sum(a > b for a, b in pairwise(sample))
    if falls == 0 and len(sample) * (1 - by_chance) / 2 > _FEW:  # of which chance makes so many
        return "sorted"
    pairs = len(window) - 1
    equal = sum(a == b for a, b in pairwise(window))
    expected, spread = pairs * by_chance, (pairs * by_chance * (1 - by_chance)) ** 0.5
    if equal > max(expected + 5 * spread, (pairs + expected) / 2):
        return "grouped"
    return "shuffled" if pairs > _FEW else "unknown"
