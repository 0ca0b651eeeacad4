"""A contact sheet: some records of a database side by side, with their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.atomic import write_bytes
from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.records.class_table import class_names
from irv2caffe.data.records.datum import read_head
from irv2caffe.data.records.decode import stored_pixels
from irv2caffe.data.records.image import draw_text, encode_image, resize
from irv2caffe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

_TILE = 160
_CAPTION = 34
_GAP = 8
_COLUMNS = 8
_PAPER, _INK, _FAINT = 250, (40, 40, 40), (130, 130, 130)
_CHARACTERS = 22


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
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    height, width = tiles[0].shape[:2]
    sheet = np.full((rows * height + _GAP, columns * width + _GAP, 3), _PAPER, np.uint8)
    for place, tile in enumerate(tiles):
        top, left = place // columns * height + _GAP, place % columns * width + _GAP
        sheet[top : top + height - _GAP, left : left + width - _GAP] = tile[:-_GAP, :-_GAP]
    kind = "jpg" if out.suffix.lower() in {".jpg", ".jpeg"} else "png"
    write_bytes(out, encode_image(sheet, kind).tobytes())
    return len(tiles)


def _tile(key: bytes, value: bytes, names: tuple[str, ...]) -> Pixels:
    """A record with its label and the end of its key below it."""
    tile = np.full((_TILE + _CAPTION + _GAP, _TILE + _GAP, 3), _PAPER, np.uint8)
    label: int | None = None
    try:
        label = read_head(value).label
        tile[:_TILE, :_TILE] = _visible(stored_pixels(value))
    except ValueError as error:
        draw_text(tile, "cannot be decoded", 4, 20, _INK)
        draw_text(tile, str(error)[:_CHARACTERS], 4, 40, _FAINT)
    words = "no label" if label is None else str(label)
    if label is not None and 0 <= label < len(names) and names[label] != words:
        words = f"{label} {names[label]}"
    name = key.decode("utf-8", "replace").rpartition("/")[2]
    draw_text(tile, _shortened(words), 2, _TILE + 14, _INK)
    draw_text(tile, _shortened(name), 2, _TILE + 29, _FAINT)
    return tile


def _visible(image: NDArray[Any]) -> Pixels:
    """Three channels of 8 bits; floats are scaled from lowest to highest."""
    if image.dtype != np.uint8:
        values = image.astype(np.float64)
        low, high = float(values.min()), float(values.max())
        image = ((values - low) / (high - low or 1) * 255).astype(np.uint8)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] not in {3, 4}:
        image = np.repeat(image[:, :, :1], 3, axis=2)
    pixels = np.ascontiguousarray(image[:, :, :3])
    return resize(pixels, (_TILE, _TILE), "fill", "area")


def _shortened(text: str) -> str:
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 2]}.."
