"""The plan of a build: its records, their order, and the units of work they are made in."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.data.build.record_order import num_records, record_order
from irv2caffe.data.records.datum import MAX_KEY_BYTES, record_key
from irv2caffe.errors import InputError, UsageError

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from irv2caffe.data.options import BuildOptions
    from irv2caffe.data.records.items import Item, Source

FORMAT = 1  # of records and states; an unfinished database of another format is not resumed
COMMIT_BYTES = 64 << 20
COMMIT_RECORDS = 2000
MAX_RECORDS = 100_000_000  # keys have eight digits and must sort like numbers
_UNIT_BYTES = 8 << 20
_LARGEST_UNIT = 256
_UNIT_OF_ANY_SIZE = 4
_SLOT_OF_ANY_SIZE = 16 << 20
_RECORD_OVERHEAD = 64
_LEAF_BYTES = 96  # a node, its key, its share of the branches
_PAGE = 4096
_LARGEST_IN_LEAF = 2030


@dataclass(frozen=True)
class WorkUnit:
    """A few neighbouring records: their places in the database and their images."""

    number: int
    indices: tuple[int, ...]
    items: tuple[Item, ...]


@dataclass(frozen=True)
class BuildPlan:
    """The images in the order of the records, divided into units of work.

    Attributes:
        source: of the images.
        options: of the database.
        is_shuffled: whether the records are shuffled.
        order: for each record, the index of its image in the source.
        unit_size: number of records in a unit of work.
        slot_bytes: shared memory for a unit of work.
        fingerprint: hash; equal for two plans that make the same database.
    """

    source: Source
    options: BuildOptions
    is_shuffled: bool
    order: array[int]
    unit_size: int
    slot_bytes: int
    fingerprint: str

    def __len__(self) -> int:
        return len(self.order)

    def item(self, index: int) -> Item:
        """The image of a record."""
        return self.source.items[self.order[index]]

    def units(self, start: int = 0) -> Iterator[WorkUnit]:
        """The units of work from record ``start`` on, which must be the first of a unit."""
        assert start % self.unit_size == 0 or start >= len(self)
        for number, first in enumerate(range(start, len(self), self.unit_size)):
            indices = range(first, min(first + self.unit_size, len(self)))
            yield WorkUnit(number, tuple(indices), tuple(self.item(index) for index in indices))

    @property
    def inputs(self) -> dict[str, Any]:
        """What decides on the records, to name what differs from another plan."""
        part = self.source.part
        return {
            "source": str(self.source.root.absolute()),
            "number of images": len(self.source.items),
            "classes": len(self.source.classes),
            "val_fraction": part.val_fraction if part is not None else None,
            **self.options.record_options(),
        }

    def list_lines(self) -> Iterator[bytes]:
        """The records as convert_imageset's list has them: lines of a path, a blank and a label.

        Raises:
            InputError: a name with a line break, which the format has no way to write.
        """
        for index in range(len(self)):
            item = self.item(index)
            if "\n" in item.name or "\r" in item.name:
                raise InputError(
                    f"convert_imageset cannot read {item.name!r}",
                    "rename it, or --backend native",
                )
            yield f"{item.name} {item.label}\n".encode("utf-8", "surrogateescape")

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the source and on the order, one line each."""
        if not self.options.balance:
            return self.source.notes
        counts = Counter(self.source.items.labels)
        largest, smallest = max(counts.values()), min(counts.values())
        each, times = largest * self.options.copies, -(-largest // smallest) * self.options.copies
        note = f"balanced: {each:,} records of each class, an image {times:,} times at most"
        return (*self.source.notes, note)

    def sample(self, count: int, end: int | None = None) -> list[WorkUnit]:
        """``count`` units of one record each, spread evenly over the records before ``end``."""
        end = len(self) if end is None else end
        places = sorted({index * end // count for index in range(count)})
        return [
            WorkUnit(number, (place,), (self.item(place),))
            for number, place in enumerate(places)
            if place < end
        ]

    @property
    def is_mean_exact(self) -> bool:
        """Whether the mean is that of all records as training decodes them."""
        changes = self.options.encoded == "jpg"
        return not changes or self.options.is_mean_exact(len(self) - 1)

    @property
    def room_bytes(self) -> int:
        """Map size to reserve for one transaction; more than any needs."""
        return 512 << 20 if self.options.fixed_shape is not None else 4 << 30


def make_plan(source: Source, options: BuildOptions) -> BuildPlan:
    """Decides the order and checks the keys.

    Raises:
        InputError: more records than keys can count, or a path that is too long for a key.
        UsageError: a validation set is to be balanced.
    """
    is_shuffled = options.shuffle if options.shuffle is not None else not source.is_validation
    if options.balance and source.is_validation:
        raise UsageError("--balance is for training sets, and this is a validation set")
    expected = num_records(source.items.labels, options)
    if expected > MAX_RECORDS:
        raise InputError(
            f"{expected:,} records are more than the {MAX_RECORDS:,} that keys can count"
        )
    longest = source.items[source.items.longest_name].name
    if len(record_key(0, longest)) > MAX_KEY_BYTES:
        raise InputError(
            f"the path {longest[:60]}... is too long for a key",
            f"LMDB keys hold {MAX_KEY_BYTES} bytes; give a SOURCE nearer to the images",
        )
    order = record_order(source.items.labels, options, is_shuffled=is_shuffled)
    unit_size, slot_bytes = _unit(options)
    fingerprint = _fingerprint(source, options, order)
    return BuildPlan(source, options, is_shuffled, order, unit_size, slot_bytes, fingerprint)


def _unit(options: BuildOptions) -> tuple[int, int]:
    """(records, bytes) of a unit of work; they depend only on the options."""
    shape = options.fixed_shape
    if shape is None:
        return _UNIT_OF_ANY_SIZE, _SLOT_OF_ANY_SIZE
    num_bytes = shape[0] * shape[1] * shape[2]
    size = max(1, min(_LARGEST_UNIT, _UNIT_BYTES // (num_bytes + _RECORD_OVERHEAD)))
    return size, size * (num_bytes + _RECORD_OVERHEAD) + 4 * num_bytes


def _fingerprint(source: Source, options: BuildOptions, order: array[int]) -> str:
    known = {
        "format": FORMAT,
        "kind": source.kind,
        "root": str(source.root.absolute()),
        "classes": source.classes,
        "options": options.record_options(),
    }
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for part in source.items.packed():
        digest.update(part)
    digest.update(order.tobytes())
    return digest.hexdigest()


def file_bytes(record_bytes: float) -> float:
    """Bytes that a record takes in ``data.mdb``: large ones have pages of their own."""
    if record_bytes <= _LARGEST_IN_LEAF:
        return record_bytes + _LEAF_BYTES
    return -(-(record_bytes + 16) // _PAGE) * _PAGE + _LEAF_BYTES


def raw_record_bytes(options: BuildOptions) -> int | None:
    """Size of a raw record, where the options determine it; else None."""
    shape = options.fixed_shape
    if shape is None or options.encoded is not None:
        return None
    return shape[0] * shape[1] * shape[2] + 24
