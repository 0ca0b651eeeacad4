"""CSV files that grow with a database, and can be cut back to what it is known to hold."""

from __future__ import annotations

import csv
import os
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from irv2caffe.data.records.database_files import COMPLAINTS, SKIPPED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from irv2caffe.data.records.items import LeftOutError, Skipped

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
_HEADINGS = {SKIPPED: ("path", "reason", "detail"), COMPLAINTS: ("path", "complaint")}


def escape_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula.

    A path such as ``=HYPERLINK(...)`` comes from strangers and would be run. Such a cell has an
    apostrophe before it; so has one that begins with an apostrophe, so that the text is what is
    left without the first one.
    """
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _quoted(text: str) -> str:
    """As csv.writer has it, but for a carriage return, which that leaves bare."""
    cell = escape_cell(text)
    if not any(char in cell for char in ',"\r\n'):
        return cell
    return '"' + cell.replace('"', '""') + '"'


def _unescape_cell(cell: str) -> str:
    return cell.removeprefix("'")


class SideTables:
    """The images that were left out, and those that were taken with a complaint.

    A file appears with its first row.
    """

    def __init__(self, folder: Path, known_bytes: Mapping[str, int]) -> None:
        """Cuts the tables of an earlier process back to what the database holds.

        Args:
            folder: of the database.
            known_bytes: length of each table, by name.

        Raises:
            OSError: the folder cannot be written.
        """
        self._folder = folder
        self._streams: dict[str, IO[bytes]] = {}
        for name in _HEADINGS:
            path = folder / name
            if path.exists() and not known_bytes.get(name):
                path.unlink()
            elif path.exists():
                os.truncate(path, known_bytes[name])

    def add_skipped(self, rows: Iterable[Skipped]) -> None:
        """Images that were left out."""
        self._add(SKIPPED, ((skip.name, skip.reason, skip.detail) for skip in rows))

    def add_complaints(self, rows: Iterable[tuple[str, str]]) -> None:
        """Images that were taken although the decoder complained."""
        self._add(COMPLAINTS, rows)

    def _add(self, name: str, rows: Iterable[Sequence[str]]) -> None:
        text = "".join(",".join(map(_quoted, row)) + "\n" for row in rows)
        if not text:
            return
        if name not in self._streams:
            self._streams[name] = (self._folder / name).open("ab")
            if self._streams[name].tell() == 0:
                self._streams[name].write((",".join(_HEADINGS[name]) + "\n").encode())
        self._streams[name].write(text.encode("utf-8", "surrogateescape"))

    def sync(self) -> dict[str, int]:
        """Brings all rows to the disk; the lengths to cut back to."""
        for stream in self._streams.values():
            stream.flush()
            os.fsync(stream.fileno())
        return {
            name: (self._folder / name).stat().st_size
            for name in _HEADINGS
            if (self._folder / name).exists()
        }

    def close(self) -> None:
        """Closes the files."""
        for stream in self._streams.values():
            stream.close()


def beside(out: Path) -> Path:
    """Where the table of skipped images goes when there is no database to hold it."""
    return out.with_name(f"{out.name}.{SKIPPED}")


def keep_skipped(folder: Path, out: Path, error: LeftOutError) -> None:
    """Keeps the table of a database that will not be made, and says in the error where it is.

    Args:
        folder: of the unfinished database, which is about to be removed.
        out: where the database would stand.
        error: why it will not.
    """
    with suppress(OSError):
        (folder / SKIPPED).replace(beside(out))
        error.hint += f"; {beside(out)} lists all of them"


def read_skipped(folder: Path, most: int = 1_000_000) -> list[tuple[str, str, str]]:
    """(path, reason, detail) of the images that a database left out."""
    path = folder / SKIPPED
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = csv.reader(stream)
        next(rows, None)
        found = (map(_unescape_cell, row) for _, row in zip(range(most), rows, strict=False))
        return [(path, reason, detail) for path, reason, detail in found]
