"""Counts how often files are opened, by whatever process, as the kernel tells it (inotify)."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OPEN, _CLOSE = 0x20, 0x8 | 0x10
_EVENT = struct.Struct("iIII")


@contextmanager
def counted_openings(*paths: Path) -> Iterator[Counter[Path]]:
    """Counts openings of some files while the block runs; the counts are there at its end."""
    counts: Counter[Path] = Counter()
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(0)
    assert queue >= 0, os.strerror(ctypes.get_errno())
    names = {}
    for path in paths:
        # Closings are watched, too: the kernel makes two equal events in a row one.
        watch = libc.inotify_add_watch(queue, os.fsencode(path), _OPEN | _CLOSE)
        assert watch >= 0, os.strerror(ctypes.get_errno())
        names[watch] = path
    end = paths[0].parent / ".end"
    end.touch()
    last = libc.inotify_add_watch(queue, os.fsencode(end), _OPEN)

    def read() -> None:
        while True:
            events = os.read(queue, 1 << 16)
            while events:
                watch, mask, _, length = _EVENT.unpack_from(events)
                events = events[_EVENT.size + length :]
                if watch == last:
                    return
                counts[names[watch]] += bool(mask & _OPEN)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield counts
    finally:
        end.read_bytes()
        reader.join()
        os.close(queue)
        end.unlink()
