"""Sums of pixels for the mean image and the mean of each channel.

They are exact, so that the mean does not depend on the number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Shape = tuple[int, int, int]  # channels, height, width


def shape_of(pixels: NDArray[Any]) -> Shape:
    """(channels, height, width) of an image."""
    return (1 if pixels.ndim == 2 else pixels.shape[2], pixels.shape[0], pixels.shape[1])


@dataclass
class UnitSums:
    """Sums over the images of one unit of work.

    Images of one shape are added as images, in float32, which is exact for so few of them. Once
    shapes differ, only the sums of the channels are kept.

    Attributes:
        shape: of the first image; None before it.
        image: sum of the images, height x width x channels; None where shapes differ.
        channels: sums of the values of B, G, R, where ``image`` is None.
        num_pixels: of all images.
        is_possible: the images have the same number of channels, of 8 bits.
    """

    shape: Shape | None = None
    image: NDArray[np.float32] | None = None
    channels: list[int] = field(default_factory=list)
    num_pixels: int = 0
    is_possible: bool = True

    def add(self, pixels: NDArray[Any]) -> None:
        """Adds an image, height x width x channels."""
        if not self.is_possible:
            return
        shape = shape_of(pixels)
        if pixels.dtype != np.uint8 or (self.shape is not None and shape[0] != self.shape[0]):
            self.is_possible = False  # such records have no common mean
            self.image = None
            return
        if self.shape is None:
            self.shape = shape
            self.channels = [0] * shape[0]
            self.image = np.zeros(pixels.shape, np.float32)
        elif self.image is not None and shape != self.shape:
            self.channels = _added(self.channels, self.image)
            self.image = None
        self.num_pixels += shape[1] * shape[2]
        if self.image is not None:
            from irv2caffe.data.records.image import add_to

            add_to(pixels, self.image)
        else:
            self.channels = _added(self.channels, pixels)

    def taken(self) -> UnitSums:
        """The sums so far; this object starts again from zero."""
        sums = UnitSums(**vars(self))
        vars(self).update(vars(UnitSums()))
        return sums


@dataclass
class MeanSums:
    """Sums over all records so far.

    Attributes:
        shape: of all records; None where they differ, or before the first.
        image: sum of all records, height x width x channels, in whole numbers, which float64
            holds exactly; None where their shapes differ.
        channels: sums of the values of B, G, R, where ``image`` is None.
        num_images: number of images that were added.
        num_pixels: of all of them.
        is_possible: the records have the same number of channels, of 8 bits.
    """

    shape: Shape | None = None
    image: NDArray[np.float64] | None = None
    channels: list[int] = field(default_factory=list)
    num_images: int = 0
    num_pixels: int = 0
    is_possible: bool = True

    def add(self, sums: UnitSums, num_images: int) -> None:
        """Adds the sums of ``num_images`` records."""
        self.is_possible &= sums.is_possible
        if not self.is_possible or sums.shape is None:
            return
        if self.num_images == 0:
            self.shape = sums.shape
            self.channels = [0] * sums.shape[0]
            if sums.image is not None:
                self.image = np.zeros(sums.image.shape, np.float64)
        if len(sums.channels) != len(self.channels):
            self.is_possible = False
            return
        if sums.image is not None and self.image is not None and sums.shape == self.shape:
            np.add(self.image, sums.image, out=self.image)
        else:
            if self.image is not None:
                self.channels = _added(self.channels, self.image)
            self.image = self.shape = None
            if sums.image is not None:
                self.channels = _added(self.channels, sums.image)
            else:
                self.channels = [a + b for a, b in zip(self.channels, sums.channels, strict=True)]
        self.num_images += num_images
        self.num_pixels += sums.num_pixels

    def mean_values(self) -> list[float] | None:
        """Mean of B, G, R (or gray) over all pixels; None where there is none."""
        if not self.is_possible or not self.num_pixels:
            return None
        sums = self.channels
        if self.image is not None:
            sums = _added([0] * len(sums), self.image)
        return [value / self.num_pixels for value in sums]

    def mean_image(self) -> NDArray[np.float32] | None:
        """Channels x height x width, where all records have one shape."""
        if not self.is_possible or self.image is None or not self.num_images:
            return None
        mean = self.image / self.num_images
        planes = mean[None] if mean.ndim == 2 else mean.transpose(2, 0, 1)
        return np.ascontiguousarray(planes, np.float32)


def _added(channels: list[int], image: NDArray[Any]) -> list[int]:
    """Sums of the channels, plus those of an image."""
    exact = np.int64 if image.dtype == np.uint8 else np.float64
    sums = image.reshape(-1, len(channels)).sum(axis=0, dtype=exact)
    return [a + round(b) for a, b in zip(channels, sums.tolist(), strict=True)]


def mean_blob(mean: NDArray[np.float32]) -> Any:
    """The mean image as compute_image_mean writes it: a BlobProto with the old dimensions."""
    from irv2caffe.proto import messages

    channels, height, width = mean.shape
    blob = messages.BlobProto(num=1, channels=channels, height=height, width=width)
    blob.data.extend(mean.ravel().tolist())
    return blob
