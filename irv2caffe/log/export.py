"""Writes rows as CSV or JSON lines, and reads the CSV back."""

from __future__ import annotations

import csv
import heapq
import json
import math
from dataclasses import fields
from typing import IO, TYPE_CHECKING, Any, Literal

from irv2caffe.atomic import atomic_file, write_error
from irv2caffe.errors import FormatError, InputError, MissingInputError
from irv2caffe.log.table import Table, TestRow, TrainRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# Prefix of the columns of net outputs.
OUTPUT = "output:"
_COLUMNS = (
    "kind", "iteration", "epoch", "loss", "lr", "seconds", "images_per_second",
    "top1_error", "top5_error", "net",
)  # fmt: skip
_INTEGERS = {"iteration", "net"}
_MAX_DIGITS = 18
_NO_DISPLAY: dict[str, Any] = dict.fromkeys(field.name for field in fields(TrainRow))
_NO_TEST: dict[str, Any] = dict.fromkeys(field.name for field in fields(TestRow))


def rows_of(table: Table) -> Iterator[dict[str, Any]]:
    """All rows as dictionaries, by iteration, a test before the display of the same iteration.

    Keys are ``kind`` (``train`` or ``test``), the fields of the row, and ``output:NAME`` for each
    output; fields without a value are left out.
    """
    train = (_as_dict("train", row) for row in table.train)
    tests = sorted([*table.test, *table.other_tests], key=lambda row: (row.iteration, row.net))
    test = (_as_dict("test", row) for row in tests)
    return heapq.merge(test, train, key=lambda row: row["iteration"])


def _as_dict(kind: str, row: TrainRow | TestRow) -> dict[str, Any]:
    values: dict[str, Any] = {"kind": kind}
    for field in fields(row):
        value = getattr(row, field.name)
        if value is not None and field.name != "outputs":
            values[field.name] = value
    values.update((f"{OUTPUT}{name}", value) for name, value in row.outputs.items())
    return values


def _output_names(table: Table) -> list[str]:
    names: dict[str, None] = {}
    for test in (*table.test, *table.other_tests):
        names.update(dict.fromkeys(test.outputs))
    columns = getattr(table.train, "outputs", None)
    if columns is not None:
        names.update(dict.fromkeys(columns))
    else:
        for row in table.train:
            names.update(dict.fromkeys(row.outputs))
    return list(names)


def write_csv(path: Path, table: Table) -> None:
    """One line per display or test, by iteration; fields without a value are empty.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_file(path) as temporary:
        try:
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                dump_csv(stream, table)
        except OSError as error:
            raise write_error(path, error) from error


def dump_csv(stream: IO[str], table: Table) -> None:
    """Writes the text of :func:`write_csv`."""
    columns = [*_COLUMNS, *(f"{OUTPUT}{name}" for name in _output_names(table))]
    # A name may hold a carriage return, which csv does not quote by itself.
    has_return = any("\r" in name for name in columns)
    quoting: Literal[0, 1] = csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL
    csv.writer(stream, lineterminator="\n", quoting=quoting).writerow(columns)
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writerows(rows_of(table))


def write_jsonl(path: Path, tables: Mapping[str, Table]) -> None:
    """One JSON object per display or test of each run; numbers that are not finite are null.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_file(path) as temporary:
        try:
            with temporary.open("w", encoding="utf-8") as stream:
                for name, table in tables.items():
                    for row in rows_of(table):
                        line = {"run": name, **{key: _finite(row[key]) for key in row}}
                        stream.write(f"{json.dumps(line, allow_nan=False)}\n")
        except OSError as error:
            raise write_error(path, error) from error


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_csv(path: Path) -> Table:
    """Reads the rows of :func:`write_csv`; the file has no restarts and no batch size.

    Raises:
        MissingInputError: there is no such file.
        FormatError: the file was not written by :func:`write_csv`.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return load_csv(stream)
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise FormatError(f"not rows of plot-log --csv: {error}", path=path) from error


def load_csv(stream: IO[str]) -> Table:
    """Reads rows from the text of a CSV file.

    Raises:
        ValueError: the text has another format (also TypeError, csv.Error).
    """
    train: list[TrainRow] = []
    test: list[TestRow] = []
    reader = csv.DictReader(stream)
    if not {"kind", "iteration"} <= set(reader.fieldnames or ()):
        raise ValueError("there are no columns kind and iteration")
    for row in reader:
        if None in row:
            raise ValueError(f"line {reader.line_num} has more cells than columns")
        needed = {"train": ("iteration", "loss"), "test": ("iteration",)}.get(row["kind"], ("",))
        if not all(row.get(name) for name in needed):
            raise ValueError(f"line {reader.line_num} is neither a display nor a test")
        values = _values(row)
        if row["kind"] == "train":
            train.append(TrainRow(**{**_NO_DISPLAY, **values}))
        else:
            test.append(TestRow(**{**_NO_TEST, **values}))
    first = min((row.net for row in test), default=0)
    others = tuple(row for row in test if row.net != first)
    return Table(
        tuple(train), tuple(row for row in test if row.net == first), (), None, None, (), others
    )


def _values(row: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a row that have a value."""
    values: dict[str, Any] = {"outputs": {}}
    for key, text in row.items():
        if not text or key == "kind":
            continue
        if key.startswith(OUTPUT):
            values["outputs"][key.removeprefix(OUTPUT)] = float(text)
        elif key not in _INTEGERS:
            values[key] = float(text)
        elif len(text) > _MAX_DIGITS:
            raise ValueError("a number of too many digits")
        else:
            values[key] = int(text)
    return values
