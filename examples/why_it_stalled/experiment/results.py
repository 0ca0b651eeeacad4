"""The file of results: one line of JSON for each run, appended as it ends."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    Line = dict[str, Any]

KEY = ("arm", "seed", "engine", "epochs")


def append(path: Path, line: Line) -> None:
    """Appends a line in one piece."""
    data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def read(path: Path) -> list[Line]:
    """The lines so far; one that a crash cut off is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text("utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and line.keys() >= set(KEY):
            lines.append(line)
    return lines


def key_of(line: Line) -> tuple[str, int, str, int]:
    """Which run a line is of."""
    return str(line["arm"]), int(line["seed"]), str(line["engine"]), int(line["epochs"])
