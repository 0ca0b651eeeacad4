"""Files beside the records: class names, mean, CSV tables of problems, and the manifest."""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

from irv2caffe import system
from irv2caffe.atomic import write_bytes
from irv2caffe.data.records.class_table import escape_name
from irv2caffe.data.records.database_files import (
    COMPLAINTS,
    DUPLICATES,
    LABELS,
    LIST,
    MANIFEST,
    MEAN_FILE,
    SKIPPED,
    WORDS,
)
from irv2caffe.data.records.mean import mean_blob
from irv2caffe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from irv2caffe.data.build.build_plan import BuildPlan
    from irv2caffe.data.build.state import State
    from irv2caffe.data.records.items import LeftOutError, Skipped, SplitPart

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
_HEADINGS = {SKIPPED: ("path", "reason", "detail"), COMPLAINTS: ("path", "complaint")}


def escape_cell(text: str) -> str:
    """A CSV cell that no spreadsheet runs as a formula.

    Paths such as ``=HYPERLINK(...)`` are untrusted. Such a cell gets an apostrophe in front, and so
    does one that begins with an apostrophe: the text is the cell without its first apostrophe.
    """
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _quoted(text: str) -> str:
    """Quotes as csv.writer does, and carriage returns too, which that leaves bare."""
    cell = escape_cell(text)
    if not any(char in cell for char in ',"\r\n'):
        return cell
    return '"' + cell.replace('"', '""') + '"'


class SideTables:
    """``skipped.csv`` and ``complaints.csv``; each file is created with its first row."""

    def __init__(self, folder: Path, known_bytes: Mapping[str, int]) -> None:
        """Truncates existing tables to ``known_bytes``, their committed lengths by file name.

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
        """Adds images that were skipped."""
        self._add(SKIPPED, ((skip.name, skip.reason, skip.detail) for skip in rows))

    def add_complaints(self, rows: Iterable[tuple[str, str]]) -> None:
        """Adds (name, message) of images that were stored although the decoder complained."""
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
        """Syncs all rows to the disk, and returns the length of each table."""
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


def skipped_beside(out: Path) -> Path:
    """The path of ``skipped.csv`` beside the output, where no database is made."""
    return out.with_name(f"{out.name}.{SKIPPED}")


def keep_skipped(folder: Path, out: Path, error: LeftOutError) -> None:
    """Moves ``skipped.csv`` of a failed build beside ``out``, and adds its path to the error."""
    with suppress(OSError):
        (folder / SKIPPED).replace(skipped_beside(out))
        error.hint += f"; {skipped_beside(out)} lists all of them"


def read_skipped(folder: Path, most: int = 1_000_000) -> list[tuple[str, str, str]]:
    """(path, reason, detail) of the skipped images of a database."""
    path = folder / SKIPPED
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = csv.reader(stream)
        next(rows, None)
        cells = ([cell.removeprefix("'") for cell in row] for row in itertools.islice(rows, most))
        return [(path, reason, detail) for path, reason, detail in cells]


@dataclass(frozen=True)
class BuildReport:
    """The result of make-lmdb.

    Attributes:
        out: the database.
        source: path of the source.
        num_images: records in the database.
        num_classes: classes in the table, or highest label plus one.
        num_skipped: images that were skipped; ``skipped.csv`` names them.
        skipped: number of skipped images by reason.
        num_complaints: images that were stored although the decoder complained;
            ``complaints.csv`` names them.
        mean_values: of B, G, R (or gray); None where records have no common mean.
        size_bytes: of ``data.mdb``.
        seconds: duration of this process.
        images_per_second: of this process.
        resumed_at: the record that this process started from.
        notes: remarks on the source, one line each.
        findings: probable problems with the records, one line each.
    """

    out: Path
    source: str
    num_images: int
    num_classes: int
    num_skipped: int
    skipped: dict[str, int]
    num_complaints: int
    mean_values: list[float] | None
    size_bytes: int
    seconds: float
    images_per_second: float
    resumed_at: int
    notes: tuple[str, ...]
    findings: tuple[str, ...]


def write_side_files(
    folder: Path, plan: BuildPlan, state: State, backend: str, findings: list[str]
) -> None:
    """Writes all files beside ``data.mdb``; the manifest last. ``backend`` wrote the records.

    Raises:
        OutputError: the disk is full or fails.
    """
    source = plan.source
    if source.classes:
        _write_lines(folder / LABELS, source.classes)
    if any(source.words):
        lines = [
            f"{name} {words}" for name, words in zip(source.classes, source.words, strict=True)
        ]
        _write_lines(folder / WORDS, lines)
    mean = state.mean.mean_image()
    if mean is not None:
        write_bytes(folder / MEAN_FILE, mean_blob(mean).SerializeToString(deterministic=True))
    manifest = _manifest(plan, state, backend)
    if source.part is not None:
        _write_part(folder, plan, source.part)
        findings = [*source.part.findings, *findings]
    manifest["findings"] = findings
    text = json.dumps(manifest, indent=2) + "\n"
    write_bytes(folder / MANIFEST, text.encode())


def _write_part(folder: Path, plan: BuildPlan, part: SplitPart) -> None:
    """Writes which images one part of a divided data set has, and which of them are equal."""
    with suppress(InputError):  # a name that no list can hold
        write_bytes(folder / LIST, b"".join(plan.list_lines()))
    if part.duplicates:
        rows = [("group", "path", "label", "part"), *part.duplicates]
        text = "".join(",".join(_quoted(str(cell)) for cell in row) + "\n" for row in rows)
        write_bytes(folder / DUPLICATES, text.encode("utf-8", "surrogateescape"))


def _write_lines(path: Path, lines: list[str] | tuple[str, ...]) -> None:
    text = "".join(f"{escape_name(line)}\n" for line in lines)
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def _manifest(plan: BuildPlan, state: State, backend: str) -> dict[str, Any]:
    source, per_label, part = plan.source, state.per_label, plan.source.part
    values = {
        "fingerprint": plan.fingerprint,
        "source": str(source.root.absolute()),
        "kind": source.kind,
        "backend": backend,
        "options": asdict(plan.options),
        "shuffled": plan.is_shuffled,
        "num_images": state.num_written,
        "num_skipped": state.num_skipped,
        "skipped": dict(state.skipped),
        "num_complaints": state.num_complaints,
        "num_classes": len(source.classes) or max(per_label) + 1,
        "max_label": max(per_label),
        "classes": list(source.classes),
        "images_per_label": {str(label): per_label[label] for label in sorted(per_label)},
        "mean_values": state.mean.mean_values(),
        "mean_file": MEAN_FILE if state.mean.mean_image() is not None else None,
        "mean_is_exact": backend != "native" or plan.is_mean_exact,
        "record_shape": state.mean.shape,
        "record_bytes": state.num_bytes,
        "notes": list(plan.notes),
        "seconds": round(state.seconds, 3),
        "versions": system.versions(),
    }
    if plan.options.balance:
        counts = Counter(source.items.labels)
        values["images_per_label_before"] = {str(label): counts[label] for label in sorted(counts)}
    if part is not None:
        values["part"] = {
            "name": part.name,
            "val_fraction": part.val_fraction,
            "seed": part.seed,
            "num_duplicates": part.num_duplicates,
        }
    return values
