"""What can be known of a database or an image list in a second, without reading all of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.records.database_files import read_manifest
from irv2caffe.data.records.datum import holds_its_image, is_height_first, read_head
from irv2caffe.data.records.headers import image_kind, looks_cut_off
from irv2caffe.errors import FormatError
from irv2caffe.system import read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from irv2caffe.data.records.datum import DatumHead

MAX_LIST_BYTES = 1 << 30
# Labels of all records are read where that takes about a second, also from a cold disk.
_MAX_READ = 100_000
_MAX_READ_BYTES = 1 << 30
# Else those of so many records, or of so many bytes.
_MAX_SAMPLE = 20_000
_MAX_SAMPLE_BYTES = 200 << 20
# Compressed images that are decoded: of so many bytes, but within these bounds.
_DECODED_BYTES = 8 << 20
_MIN_DECODED, _MAX_DECODED = 64, 2000
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
        num_decoded: compressed images that were decoded: every so-many-eth of those looked at, and
            any that looks broken.
        num_broken: records that hold no image that Caffe could read, among those looked at.
        broken: the key of the first of them, and why.
        height_first: the sizes look like height x width x channels.
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
    num_decoded: int = 0
    num_broken: int = 0
    broken: str = ""
    height_first: bool = False
    class_names: tuple[str, ...] = ()


def database_facts(
    folder: Path,
    *,
    is_quick: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> SourceFacts:
    """Facts of an LMDB: its size, and what its records show, or a sample of them.

    Args:
        folder: of the database.
        is_quick: of a database whose manifest tells the labels only the first record is looked at.
        progress: called with (records done, all that are looked at).

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
        record_bytes = max(1, len(first[1]))
        wanted = max(_WINDOW, min(_MAX_SAMPLE, _MAX_SAMPLE_BYTES // record_bytes))
        if count <= _MAX_READ and count * record_bytes <= _MAX_READ_BYTES:
            wanted = count
        if is_quick and described_labels(folder, count) is not None:
            wanted = 1
        window = [_label(value) for _, value in islice(reader.views(), min(wanted, _WINDOW))]
        seen = _Seen(min(count, wanted), _DECODED_BYTES // record_bytes)
        for number, (key, value) in enumerate(reader.sample(wanted, views=True), 1):
            seen.look(bytes(key), value)
            progress(number, wanted)
    if not seen.shapes:
        why = seen.broken or "they are empty"
        raise FormatError(
            f"its records hold no images: {why}", "was it made for Caffe?", path=folder
        )
    channels, height, width = seen.shapes[0]
    return SourceFacts(
        "LMDB",
        num_records=count,
        channels=channels,
        height=height,
        width=width,
        encoded=seen.encoded,
        min_label=min(seen.labels),
        max_label=max(seen.labels),
        order=label_order(seen.labels, window),
        mixed_channels=len({shape[0] for shape in seen.shapes}) > 1,
        mixed_sizes=len({shape[1:] for shape in seen.shapes}) > 1,
        num_looked_at=len(seen.labels),
        num_decoded=seen.num_decoded,
        num_broken=seen.num_broken,
        broken=seen.broken,
        height_first=seen.height_first,
        class_names=_class_names(folder),
    )


def described_labels(folder: Path, num_records: int) -> tuple[int, int] | None:
    """(highest label, number of classes) as make-lmdb wrote them down; None where it did not."""
    manifest = read_manifest(folder)
    told = manifest.get("max_label"), manifest.get("num_classes")
    if manifest.get("num_images") != num_records or not all(isinstance(n, int) for n in told):
        return None
    return int(told[0] or 0), int(told[1] or 0)


def _label(value: memoryview) -> int:
    """Of a record; 0 where it has none, as for Caffe, or is none."""
    try:
        return read_head(value).label or 0
    except FormatError:
        return 0


def _class_names(folder: Path) -> tuple[str, ...]:
    """The table that make-lmdb writes beside a database."""
    if not (folder / "labels.txt").exists():
        return ()
    from irv2caffe.data.records.class_table import class_names

    return class_names(folder)


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


@dataclass
class _Seen:
    """What the records show that were looked at.

    Attributes:
        expected: records that will be looked at.
        affordable: compressed images that decoding may take the time of.
    """

    expected: int
    affordable: int
    labels: list[int] = field(default_factory=list)
    shapes: list[tuple[int, int, int]] = field(default_factory=list)
    encoded: bool | None = None
    height_first: bool = False
    num_looked_at: int = 0
    num_decoded: int = 0
    num_suspects: int = 0
    num_broken: int = 0
    broken: str = ""

    def look(self, key: bytes, value: memoryview) -> None:
        """At one record: its label, and its shape where that is known."""
        self.num_looked_at += 1
        try:
            head = read_head(value)
        except FormatError as error:
            self._note(key, error.message)
            return
        self.labels.append(head.label or 0)
        if head.is_encoded:
            start, size = head.data
            self._look_at_file(key, value[start : start + size])
        elif holds_its_image(head):
            self._add(head.shape, head)
        elif head.data[1] or head.num_floats:
            sizes = " x ".join(map(str, head.shape))
            values = head.data[1] or head.num_floats
            self._note(key, f"{values:,} values, its sizes are {sizes}")
        else:
            self._note(key, "it is empty")

    def _look_at_file(self, key: bytes, data: memoryview) -> None:
        most = max(_MIN_DECODED, min(_MAX_DECODED, self.affordable))
        step = -(-self.expected // most)
        is_suspect = self.num_suspects < most and looks_cut_off(data, image_kind(data))
        self.num_suspects += is_suspect
        is_chosen = (self.num_looked_at - 1) % step == 0 or self.num_looked_at == self.expected
        if not (is_suspect or is_chosen):
            return
        from irv2caffe.data.records.image import UndecodableImageError, decode_record
        from irv2caffe.data.records.mean import shape_of

        self.num_decoded += 1
        try:
            self._add(shape_of(decode_record(bytes(data))), None)
        except UndecodableImageError as error:
            self._note(key, str(error))

    def _add(self, shape: tuple[int, int, int], head: DatumHead | None) -> None:
        if self.encoded is None:
            self.encoded = head is None
            self.height_first = head is not None and is_height_first(head)
        self.shapes.append(shape)

    def _note(self, key: bytes, why: str) -> None:
        self.num_broken += 1
        self.broken = self.broken or f"{key.decode('utf-8', 'replace')}: {why}"


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
