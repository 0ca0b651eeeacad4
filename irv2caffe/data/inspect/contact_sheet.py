"""A contact sheet: some records of a database side by side, with their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.data.inspect.sheet import draw_tile, write_sheet
from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.records.class_table import class_names
from irv2caffe.data.records.datum import read_head
from irv2caffe.data.records.decode import stored_pixels
from irv2caffe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


def draw_sheet(
    folder: Path,
    out: Path,
    count: int = 48,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Draws records spread over a database, in their order; returns their number.

    Args:
        folder: of the database.
        out: a PNG or JPEG file.
        count: at most so many records.
        progress: called with (records drawn, at most so many).

    Raises:
        InputError: no records.
        OutputError: ``out`` cannot be written.
    """
    names = class_names(folder)
    with open_reader(folder) as reader:
        tiles = []
        for key, value in reader.sample(count):
            tiles.append(_tile(key, value, names))
            progress(len(tiles), count)
    if not tiles:
        raise InputError(f"{folder} has no records", "build it again")
    write_sheet(tiles, out)
    return len(tiles)


def _tile(key: bytes, value: bytes, names: tuple[str, ...]) -> NDArray[np.uint8]:
    """A record with its label and the end of its key below it."""
    label: int | None = None
    image, problem = None, ""
    try:
        label = read_head(value).label
        image = stored_pixels(value)
    except ValueError as error:
        problem = str(error)
    words = "no label" if label is None else str(label)
    if label is not None and 0 <= label < len(names) and names[label] != words:
        words = f"{label} {names[label]}"
    name = key.decode("utf-8", "replace").rpartition("/")[2]
    return draw_tile(image, (words, name), problem)
