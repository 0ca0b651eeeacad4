"""Labels, shapes and broken records of a database or image list; of a large one from a sample."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from irv2caffe.data.inspect.database import Database
from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.records.class_table import class_names
from irv2caffe.data.records.database_files import MEAN_FILE, RECORDS, read_manifest
from irv2caffe.data.records.datum import holds_its_image, is_height_first, read_head
from irv2caffe.data.records.headers import image_kind, looks_cut_off
from irv2caffe.errors import FormatError
from irv2caffe.system import read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from irv2caffe.data.inspect.database import Order
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
_MAX_CLASSES = 100_000  # that are counted; a label may be any number up to 2^31
_FEW = 15  # labels; no order is told from fewer


def sample_database(
    folder: Path,
    *,
    is_quick: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Database:
    """Reads the records of an LMDB, or a sample of them; for the guarded process.

    Args:
        folder: of the database.
        is_quick: read only the first record if the manifest has the labels.
        progress: called with (records done, records to read).

    Raises:
        MissingInputError, FormatError: no such folder; no database, or records are not Datums.
    """
    if (folder / "CURRENT").is_file() and not (folder / RECORDS).is_file():
        return Database(kind="LEVELDB")
    with open_reader(folder) as reader:
        count = len(reader)
        first = next(iter(reader), None)
        if first is None:
            return Database(num_records=0)
        record_bytes = max(1, len(first[1]))
        wanted = _num_wanted(count, record_bytes)
        manifest = _manifest_values(folder, count)
        if is_quick and "manifest_max_label" in manifest:
            wanted = 1
        window = [_label(value) for _, value in islice(reader.views(), min(wanted, _WINDOW))]
        sample = _Sample(min(count, wanted), _DECODED_BYTES // record_bytes)
        for number, (key, value) in enumerate(reader.sample(wanted, views=True), 1):
            sample.add(bytes(key), value)
            progress(number, wanted)
    if not sample.shapes:
        why = f"its records hold no images: {sample.broken or 'they are empty'}"
        raise FormatError(why, "was it made for Caffe?", path=folder)
    channels, height, width = sample.shapes[0]
    names = class_names(folder)
    counts = manifest.pop("class_counts", ()) or sample.counts(count, len(names))
    return Database(
        num_records=count,
        channels=channels,
        height=height,
        width=width,
        encoded=sample.encoded,
        min_label=min(sample.labels),
        max_label=max(sample.labels),
        order=label_order(sample.labels, window),
        mixed_channels=len({shape[0] for shape in sample.shapes}) > 1,
        mixed_sizes=len({shape[1:] for shape in sample.shapes}) > 1,
        num_looked_at=len(sample.labels),
        num_decoded=sample.num_decoded,
        num_broken=sample.num_broken,
        broken=sample.broken,
        height_first=sample.height_first,
        class_names=names,
        class_counts=counts,
        **manifest,
    )


def _num_wanted(count: int, record_bytes: int) -> int:
    """Records whose labels are read: all, or a sample of many."""
    if count <= _MAX_READ and count * record_bytes <= _MAX_READ_BYTES:
        return count
    return max(_WINDOW, min(_MAX_SAMPLE, _MAX_SAMPLE_BYTES // record_bytes))


def _manifest_values(folder: Path, num_records: int) -> dict[str, Any]:
    """What make-lmdb wrote down of the labels and the mean."""
    manifest = read_manifest(folder)
    found: dict[str, Any] = {}
    labels = manifest.get("max_label"), manifest.get("num_classes")
    if manifest.get("num_images") == num_records and all(isinstance(n, int) for n in labels):
        found = dict(zip(("manifest_max_label", "manifest_num_classes"), labels, strict=True))
        per_label = manifest.get("images_per_label")
        if counts := _manifest_counts(per_label, num_records, found["manifest_num_classes"]):
            found["class_counts"] = counts
    means = manifest.get("mean_values")
    if isinstance(means, list) and all(isinstance(value, float) for value in means):
        found["mean_values"] = tuple(means)
        if (folder / MEAN_FILE).is_file():
            found["mean_file"] = str(folder / MEAN_FILE)
    return found


def _manifest_counts(per_label: Any, num_records: int, num_classes: int) -> tuple[int, ...]:
    """Records of each class, as the manifest has them; empty where that cannot be true."""
    if not isinstance(per_label, dict):
        return ()
    if not all(_is_int(label) and type(count) is int for label, count in per_label.items()):
        return ()
    counts = {int(label): count for label, count in per_label.items()}
    is_sum = sum(counts.values()) == num_records and min(counts.values(), default=0) >= 0
    return _counts(counts, num_classes) if is_sum else ()


def _counts(counts: Mapping[int, int], num_classes: int) -> tuple[int, ...]:
    """Records by label, for all classes; empty where labels are negative or too many."""
    length = max(num_classes, max(counts) + 1)
    if min(counts) < 0 or length > _MAX_CLASSES:
        return ()
    return tuple(counts.get(label, 0) for label in range(length))


def _label(value: memoryview) -> int:
    """The label of a record; 0 where it has none, as for Caffe, or is no Datum."""
    try:
        return read_head(value).label or 0
    except FormatError:
        return 0


def read_image_list(path: Path) -> Database:
    """Reads the list of an ImageData layer: lines of a path, a space and a label.

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
    found = Database(kind="LIST", num_records=len(endings), num_looked_at=len(labels))
    if not labels:
        return found
    order = label_order(labels, labels[:_WINDOW])
    return replace(found, min_label=min(labels), max_label=max(labels), order=order)


def _is_int(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) < 12


@dataclass
class _Sample:
    """Labels and shapes of the records that were read.

    Attributes:
        expected: records that will be read.
        affordable: compressed images that there is time to decode.
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

    def add(self, key: bytes, value: memoryview) -> None:
        """Adds a record: its label, and its shape where that is known."""
        self.num_looked_at += 1
        try:
            head = read_head(value)
        except FormatError as error:
            self._add_broken(key, error.message)
            return
        self.labels.append(head.label or 0)
        if head.is_encoded:
            start, size = head.data
            self._add_file(key, value[start : start + size])
        elif holds_its_image(head):
            self._add_shape(head.shape, head)
        elif head.data[1] or head.num_floats:
            sizes = " x ".join(map(str, head.shape))
            values = head.data[1] or head.num_floats
            self._add_broken(key, f"{values:,} values, its sizes are {sizes}")
        else:
            self._add_broken(key, "it is empty")

    def counts(self, num_records: int, num_classes: int) -> tuple[int, ...]:
        """Records by label; empty where not all labels were read."""
        if len(self.labels) < num_records:
            return ()
        return _counts(Counter(self.labels), num_classes)

    def _add_file(self, key: bytes, data: memoryview) -> None:
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
            self._add_shape(shape_of(decode_record(bytes(data))), None)
        except UndecodableImageError as error:
            self._add_broken(key, str(error))

    def _add_shape(self, shape: tuple[int, int, int], head: DatumHead | None) -> None:
        if self.encoded is None:
            self.encoded = head is None
            self.height_first = head is not None and is_height_first(head)
        self.shapes.append(shape)

    def _add_broken(self, key: bytes, why: str) -> None:
        self.num_broken += 1
        self.broken = self.broken or f"{key.decode('utf-8', 'replace')}: {why}"


def label_order(sample: Sequence[int], window: Sequence[int]) -> Order:
    """Tells whether labels are sorted, grouped by class, or shuffled.

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
