"""Reads from a program or library for which GPUs it holds code."""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING

from irv2caffe.system import open_regular

if TYPE_CHECKING:
    from pathlib import Path

# The format of nvcc's "fat binaries", as cuda-gdb's and other open sources describe it: a header
# (magic, version, its length, length of the rest), then one entry for each architecture.
_MAGIC = struct.pack("<I", 0xBA55ED50)
_HEADER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQ12xI")  # kind, version, length of the header, of the code, arch
_KINDS = {1: "compute", 2: "sm"}


def code_in(path: Path) -> tuple[str, ...]:
    """Returns what code there is, such as ``("compute_90", "sm_80", "sm_90")``, sorted.

    ``sm_`` is machine code, ``compute_`` is PTX, which newer GPUs compile.

    Raises:
        OSError: the file cannot be read.
    """
    found = set()
    with open_regular(path) as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as data:
        at = data.find(_MAGIC)
        while 0 <= at <= len(data) - _HEADER.size:
            _, _, header, length = _HEADER.unpack_from(data, at)
            end = min(at + header + length, len(data))
            entry = at + header
            while entry + _ENTRY.size <= end:
                kind, _, entry_header, code, arch = _ENTRY.unpack_from(data, entry)
                if kind in _KINDS:
                    found.add(f"{_KINDS[kind]}_{arch}")
                entry += max(entry_header + code, _ENTRY.size)
            at = data.find(_MAGIC, max(end, at + 1))
    return tuple(sorted(found))
