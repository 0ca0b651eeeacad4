"""Random-resized crops and colour changes, which depend only on the seed and the record's index."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from irv2caffe.data.options import Augment

    Pixels = NDArray[np.uint8]

_ATTEMPTS = 100  # as in TensorFlow's sample_distorted_bounding_box
_BRIGHTNESS = 32.0  # of 255
_SATURATION = (0.5, 1.5)


@dataclass(frozen=True, slots=True)
class Distortion:
    """The random changes of one record.

    Attributes:
        left: of the crop, as a fraction of the image's width.
        top: of the crop, as a fraction of its height.
        width: of the crop, as a fraction.
        height: of the crop, as a fraction.
        brightness: added to every value; None keeps the colours.
        saturation: factor.
        brightness_first: the order of the two; values are clipped only at the end.
    """

    left: float
    top: float
    width: float
    height: float
    brightness: float | None
    saturation: float
    brightness_first: bool


def distortion(augment: Augment, shape: tuple[int, int], seed: int, index: int) -> Distortion:
    """The random distortion of a record.

    Args:
        augment: the ranges.
        shape: (height, width) of the image.
        seed: of the database.
        index: of the record.
    """
    rng = random.Random(f"augment {seed} {index}")  # noqa: S311
    left, top, width, height = _crop(augment, shape, rng)
    brightness = rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    saturation = rng.uniform(*_SATURATION)
    first = rng.random() < 0.5
    color = augment.color
    return Distortion(left, top, width, height, brightness if color else None, saturation, first)


def _crop(
    augment: Augment, shape: tuple[int, int], rng: random.Random
) -> tuple[float, float, float, float]:
    """A random crop that fits into the image; the whole image if there is none."""
    full_height, full_width = shape
    for _ in range(_ATTEMPTS):
        area = rng.uniform(*augment.area) * full_height * full_width
        aspect = rng.uniform(*augment.aspect)
        width, height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if 1 <= width <= full_width and 1 <= height <= full_height:
            left = rng.uniform(0, full_width - width)
            top = rng.uniform(0, full_height - height)
            return (
                left / full_width,
                top / full_height,
                width / full_width,
                height / full_height,
            )
    return 0.0, 0.0, 1.0, 1.0


def cropped(pixels: Pixels, distort: Distortion) -> Pixels:
    """The crop of an image, rounded to at least one pixel."""
    height, width = pixels.shape[:2]
    crop_width = min(width, max(1, round(distort.width * width)))
    crop_height = min(height, max(1, round(distort.height * height)))
    left = min(round(distort.left * width), width - crop_width)
    top = min(round(distort.top * height), height - crop_height)
    return pixels[top : top + crop_height, left : left + crop_width]


def recolored(pixels: Pixels, distort: Distortion) -> Pixels:
    """Changes brightness and saturation like TF-slim's fast mode; of gray only the brightness."""
    if distort.brightness is None:
        return pixels
    values = pixels.astype(np.float32)
    if distort.brightness_first:
        values = np.maximum(values + np.float32(distort.brightness), 0)
    if pixels.ndim == 3:
        values = _saturated(values, distort.saturation)
    if not distort.brightness_first:
        values += np.float32(distort.brightness)
    result: Pixels = np.rint(values.clip(0, 255)).astype(np.uint8)
    return result


def _saturated(values: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Scales the saturation S of HSV, at most to 1.

    With V the largest channel and S = (V - smallest) / V, a channel c becomes V - (V - c) * S' / S.
    """
    largest = values.max(axis=2, keepdims=True)
    spread = largest - values.min(axis=2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.minimum(np.float32(factor), largest / spread)
    share[~np.isfinite(share)] = 1  # gray pixels have no saturation
    result: NDArray[np.float32] = largest - (largest - values) * share
    return result
