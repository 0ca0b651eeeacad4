"""Tiles of images with captions, and sheets of them side by side."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.atomic import write_bytes
from irv2caffe.data.records.image import draw_text, encode_image, resize
from irv2caffe.own_files import marked_jpeg, marked_png

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

_TILE = 160
_GAP = 8
_LINE = 15
_COLUMNS = 8
_PAPER, _INK, _FAINT = 250, (40, 40, 40), (130, 130, 130)
_CHARACTERS = 22


def draw_tile(image: NDArray[Any] | None, caption: Sequence[str], problem: str = "") -> Pixels:
    """An image of 160 x 160 pixels with its caption below.

    Args:
        image: height x width x channels or height x width; floats are scaled from lowest to
            highest. None draws ``problem`` in its place.
        caption: lines, the first in black and the others in gray; long ones are cut off.
        problem: why there is no image.
    """
    height = _TILE + _LINE * len(caption) + 4
    tile = np.full((height, _TILE, 3), _PAPER, np.uint8)
    if image is None:
        draw_text(tile, "cannot be decoded", 4, 20, _INK)
        draw_text(tile, problem[:_CHARACTERS], 4, 40, _FAINT)
    else:
        tile[:_TILE] = _visible(image)
    for row, line in enumerate(caption):
        bottom = _TILE + _LINE * (row + 1) - 1
        draw_text(tile, _shortened(line), 2, bottom, _FAINT if row else _INK)
    return tile


def write_sheet(tiles: Sequence[Pixels], out: Path) -> None:
    """Writes tiles of one size side by side.

    Args:
        tiles: at least one.
        out: a JPEG file by its suffix, else PNG.

    Raises:
        OutputError: it cannot be written.
    """
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    height, width = (side + _GAP for side in tiles[0].shape[:2])
    sheet = np.full((rows * height + _GAP, columns * width + _GAP, 3), _PAPER, np.uint8)
    for place, tile in enumerate(tiles):
        top, left = place // columns * height + _GAP, place % columns * width + _GAP
        sheet[top : top + height - _GAP, left : left + width - _GAP] = tile
    kind = "jpg" if out.suffix.lower() in {".jpg", ".jpeg"} else "png"
    data = encode_image(sheet, kind).tobytes()
    write_bytes(out, marked_jpeg(data) if kind == "jpg" else marked_png(data))


def thumbnail(image: NDArray[Any]) -> bytes:
    """An image of 160 x 160 pixels as a JPEG file."""
    return encode_image(_visible(image), "jpg").tobytes()


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
    """The text without accents, which the font lacks, and not too long."""
    plain = unicodedata.normalize("NFKD", text)
    text = "".join(char for char in plain if not unicodedata.combining(char))
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 2]}.."
