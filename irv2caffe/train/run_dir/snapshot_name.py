"""Parses names of snapshot files: ``PREFIX_iter_N.solverstate`` or ``.caffemodel``, ``.h5``."""

from __future__ import annotations

import re
from typing import NamedTuple

# NVCaffe can write the scores of a test into the name.
_NAME = re.compile(
    r"(.*)_iter_(\d{1,18})(?:_score[\w.]*?)?(\.(?:solverstate|caffemodel)(?:\.h5)?)", re.DOTALL
)


class SnapshotName(NamedTuple):
    """The parts of a name; ``suffix`` begins with a dot."""

    prefix: str
    iteration: int
    suffix: str


def parse_name(name: str) -> SnapshotName | None:
    """The parts of a snapshot file's name; None for any other name."""
    match = _NAME.fullmatch(name)
    return SnapshotName(match[1], int(match[2]), match[3]) if match else None
