"""Reads TensorFlow's checkpoints, V1 and V2, without TensorFlow.

A V2 checkpoint is a table of entries (``.index``) and files of values (``.data-00000-of-00001``).
A V1 checkpoint is one table that holds the values; the published one of 2016 is of this kind.
"""

from __future__ import annotations

import mmap
import re
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import FormatError, MissingInputError
from irv2caffe.proto.wire import Fields, messages_in
from irv2caffe.weights.files.tf_table import MAGIC, SortedTable, ValueLocation, masked_crc32c
from irv2caffe.weights.files.values import dtype_of, from_bytes, named, num_values, read_at
from irv2caffe.weights.tensors import StoredArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_DATA = re.compile(r"\.data-\d{5}-of-\d{5}$")
_KINDS = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    6: "int8",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    19: "float16",
}
_BROKEN = "a broken checkpoint: "
_PARTITIONED = "partitioned variable"
_HEADER = b""  # the key of the entry that describes the checkpoint
_PART = b"\0"  # the first byte of the keys of slices of a variable


def checkpoint_prefix(path: Path) -> Path | None:
    """The common prefix of a V2 checkpoint's files, given the prefix or one of the files."""
    if path.name.endswith(".index"):
        return path.with_name(path.name.removesuffix(".index"))
    if _DATA.search(path.name):
        return path.with_name(_DATA.sub("", path.name))
    return path if path.with_name(f"{path.name}.index").is_file() else None


def is_table(path: Path) -> bool:
    """Whether a file ends in the magic number of a table."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - len(MAGIC)))
        return stream.read() == MAGIC


def read_checkpoint(path: Path) -> dict[str, StoredArray]:
    """The variables of a checkpoint.

    Args:
        path: the file of a V1 checkpoint; the common prefix or any file of a V2 checkpoint.

    Raises:
        MissingInputError: a file of a V2 checkpoint does not exist.
        FormatError: damaged, or another kind of file.
    """
    prefix = checkpoint_prefix(path)
    index = path if prefix is None else prefix.with_name(f"{prefix.name}.index")
    if not index.is_file():
        raise MissingInputError(f"{index}: no such file", "a checkpoint needs all of its files")
    table = SortedTable(_mapped(index), index)
    entries = dict(table.entries())
    if _HEADER not in entries:
        raise FormatError("a table, but not a checkpoint", path=index)
    with named(index, _BROKEN):
        arrays = _v1(table, entries, index) if prefix is None else _v2(table, entries, prefix)
        return dict(arrays)


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as stream:
        if path.stat().st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def _v2(
    table: SortedTable, entries: dict[bytes, ValueLocation], prefix: Path
) -> Iterator[tuple[str, StoredArray]]:
    header = Fields(table.value(entries[_HEADER]))
    num_shards = header.number(1)
    if header.number(2) != 0:
        raise FormatError("written on a big-endian machine")
    for key, where in entries.items():
        if key.startswith(_PART) or key == _HEADER:
            continue
        entry = Fields(table.value(where))
        shard = f"{prefix.name}.data-{entry.number(3):05}-of-{num_shards:05}"
        name = key.decode("utf-8", "replace")
        yield name, _v2_raw(name, entry, prefix.with_name(shard))


def _v2_raw(name: str, entry: Fields, path: Path) -> StoredArray:
    shape = _shape(entry.data(2))
    kind = _PARTITIONED if 7 in entry else _kind(entry.number(1))
    place, size, checksum = entry.number(4), entry.number(5), entry.number(6)

    def read() -> NDArray[Any]:
        if num_values(shape) * dtype_of(kind).itemsize != size:
            raise FormatError(f"{name} has {size} bytes for the shape {shape}", path=path)
        data = read_at(path, place, size)
        if masked_crc32c(data) != checksum:
            raise FormatError(f"{name} does not have its checksum", path=path)
        return from_bytes(data, kind, shape)

    return StoredArray(shape, kind, read)


def _v1(
    table: SortedTable, entries: dict[bytes, ValueLocation], path: Path
) -> Iterator[tuple[str, StoredArray]]:
    places: dict[str, list[ValueLocation]] = {}
    for key, where in entries.items():
        if key != _HEADER:
            places.setdefault(_name_in(key), []).append(where)
    for tensor in messages_in(Fields(table.value(entries[_HEADER])).data(1), 1):
        meta = Fields(tensor)
        name = bytes(meta.data(1)).decode("utf-8", "replace")
        shape, kind = _shape(meta.data(2)), _kind(meta.number(3))
        parts = places.get(name, [])
        if not parts:
            raise FormatError(f"the values of {name} are missing", path=path)
        # V1 stores float16 as varints; no slim variable has that type
        kind = _PARTITIONED if len(parts) > 1 else f"V1 {kind}" if kind == "float16" else kind
        yield name, StoredArray(shape, kind, _v1_reader(table, parts[0], kind, shape, path))


def _v1_reader(
    table: SortedTable, where: ValueLocation, kind: str, shape: tuple[int, ...], path: Path
) -> Callable[[], NDArray[Any]]:
    field = 6 if kind == "float64" else 5

    def read() -> NDArray[Any]:
        with named(path, _BROKEN):
            tensor = Fields(Fields(table.value(where)).data(2)).data(3)
            return from_bytes(Fields(tensor).data(field), kind, shape)

    return read


def _name_in(key: bytes) -> str:
    """The variable in a V1 key: a zero byte, then the name with bytes 0 and 255 escaped."""
    name = key[1:].partition(b"\0\1")[0]
    return name.replace(b"\0\xff", b"\0").replace(b"\xff\0", b"\xff").decode("utf-8", "replace")


def _kind(number: int) -> str:
    return _KINDS.get(number, f"TensorFlow type {number}")


def _shape(data: memoryview) -> tuple[int, ...]:
    return tuple(Fields(dim).number(1) for dim in messages_in(data, 2))
