"""Rows as TensorBoard's event files, written without TensorBoard.

An event file is a sequence of records (length, checksum of the length, data, checksum of the data;
checksums are CRC-32C, masked), each an ``Event`` message of tensorboard/compat/proto/event.proto.
Only its fields 1 (wall_time), 2 (step), 3 (file_version) and 5 (summary) are used.
"""

from __future__ import annotations

import math
import re
import struct
from typing import TYPE_CHECKING

from irv2caffe.atomic import file_aside, unwritable
from irv2caffe.log.export import OUTPUT, rows_of
from irv2caffe.proto.wire import varint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from irv2caffe.log.table import Table

# The events of a run are one file of this name; a second export replaces it.
_FILE = "events.out.tfevents.0.irv2caffe"
_POLYNOMIAL = 0x82F63B78
_TAGS = {
    "loss": "loss", "lr": "learning_rate", "images_per_second": "images_per_second",
    "top1_error": "top1_error", "top5_error": "top5_error", "epoch": "epoch",
}  # fmt: skip


def write_events(folder: Path, tables: Mapping[str, Table]) -> list[Path]:
    """One folder of events for each run, with tags ``train/loss``, ``test/top1_error`` and so on.

    Times are working times since the start of the run.

    Raises:
        OutputError: a file cannot be written.
    """
    written: list[Path] = []
    for name, table in tables.items():
        path = folder / _folder_name(name) / _FILE
        while path in written:  # of names that differ in signs that folders do not show
            path = path.parent.with_name(f"{path.parent.name}_") / _FILE
        with file_aside(path) as aside:
            try:
                with aside.open("wb") as stream:
                    for record in _records(table):
                        stream.write(record)
            except OSError as error:
                raise unwritable(path, error) from error
        written.append(path)
    return written


def _folder_name(name: str) -> str:
    """A run's name as one folder, whatever is in it."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "run"


def _records(table: Table) -> Iterator[bytes]:
    yield _record(_double(1, 0.0) + _bytes(3, b"brain.Event:2"))
    seconds = 0.0
    for row in rows_of(table):
        kind, net = row["kind"], row.get("net", 0)
        group = kind if net == 0 else f"{kind}{net}"
        seconds = max(seconds, row.get("seconds", 0.0))
        summary = b"".join(_values(group, row))
        if summary:
            yield _record(_double(1, seconds) + _varint(2, row["iteration"]) + _bytes(5, summary))


def _values(group: str, row: Mapping[str, object]) -> Iterator[bytes]:
    """Summary.Value messages: 1 is the tag, 2 a float."""
    for key, value in row.items():
        tag = _TAGS.get(key) or (key.removeprefix(OUTPUT) if key.startswith(OUTPUT) else None)
        if tag is None or not isinstance(value, float | int):
            continue
        number = float(value)
        if math.isfinite(number) and abs(number) > 3.4e38:
            number = math.copysign(math.inf, number)
        inside = _bytes(1, f"{group}/{tag}".encode()) + b"\x15" + struct.pack("<f", number)
        yield _bytes(1, inside)


def _double(field: int, value: float) -> bytes:
    return bytes([field << 3 | 1]) + struct.pack("<d", value)


def _varint(field: int, value: int) -> bytes:
    return bytes([field << 3]) + varint(value)


def _bytes(field: int, data: bytes) -> bytes:
    return bytes([field << 3 | 2]) + varint(len(data)) + data


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _crc_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_CRC = [_crc_of(byte) for byte in range(256)]
