"""Databases with one thing wrong in them that LMDB believes (MDB_meta and MDB_page in mdb.c)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
ENTRIES, ROOT, TRANSACTION = 120, 128, 144  # of the main tree, from the start of a meta page
FLAGS = 10  # of a page
BRANCH, LEAF = 1, 2


def _u64(data: bytearray, at: int) -> int:
    return struct.unpack_from("<Q", data, at)[0]


def damage(folder: Path, how: str) -> None:
    """Damages a database of more than one leaf page.

    Args:
        folder: of the database.
        how: ``leaf`` (the last leaf calls itself a branch), ``beyond`` (a leaf lies behind the
            file's end), ``circle`` (every leaf is the first one), ``value`` (a record of a
            gigabyte), ``entries`` (it says more records than it has) or ``absurd`` (more than any
            file can hold).
    """
    path = folder / "data.mdb"
    data = bytearray(path.read_bytes())
    meta = max((0, PAGE), key=lambda at: _u64(data, at + TRANSACTION))
    root = _u64(data, meta + ROOT) * PAGE
    lower = struct.unpack_from("<H", data, root + 12)[0]
    nodes = [
        root + struct.unpack_from("<H", data, root + 16 + 2 * number)[0]
        for number in range((lower - 16) // 2)
    ]
    assert struct.unpack_from("<H", data, root + FLAGS)[0] & BRANCH
    assert len(nodes) > 1
    children = [struct.unpack_from("<I", data, node)[0] for node in nodes]
    match how:
        case "leaf":
            struct.pack_into("<H", data, children[-1] * PAGE + FLAGS, BRANCH)
        case "beyond":
            struct.pack_into("<I", data, nodes[-1], len(data) // PAGE + 5000)
        case "circle":
            for node in nodes:
                struct.pack_into("<I", data, node, children[0])
        case "value":
            leaf = children[0] * PAGE
            node = leaf + struct.unpack_from("<H", data, leaf + 16)[0]
            struct.pack_into("<HH", data, node, 0, (1 << 30) >> 16)
        case "entries":
            struct.pack_into("<Q", data, meta + ENTRIES, _u64(data, meta + ENTRIES) + 7)
        case "absurd":
            struct.pack_into("<Q", data, meta + ENTRIES, 1 << 63)
        case _:
            raise ValueError(how)
    path.write_bytes(bytes(data))
