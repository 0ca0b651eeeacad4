"""The mean image on the way: exact sums, whatever the number of workers."""

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


@dataclass(frozen=True)
class Sums:
    """Sums over the records of a unit of work, as a worker sends them.

    Attributes:
        shape: of the first record; None where there is none.
        image: sum of the records, height x width x channels, where they have one shape.
        channels: sums of the values of B, G, R, where they have not.
        num_pixels: of all records.
        is_possible: records have the same number of channels, of 8 bits.
    """

    shape: Shape | None
    image: NDArray[np.float32] | None
    channels: list[int]
    num_pixels: int
    is_possible: bool


class UnitSums:
    """Sums over a few images, made by a worker.

    Images of one shape are summed as images, in float32, which is exact for so few of them;
    once shapes differ only the sums of the channels are kept.
    """

    def __init__(self, *, is_wanted: bool = True) -> None:
        self._is_wanted = is_wanted
        self.clear()

    def clear(self) -> None:
        """Starts anew."""
        self.shape: Shape | None = None
        self.image: NDArray[np.float32] | None = None
        self.channels: list[int] = []
        self.num_pixels = 0
        self.is_possible = True

    def add(self, pixels: NDArray[Any]) -> None:
        """Adds an image, height x width x channels."""
        if not self._is_wanted or not self.is_possible:
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
            self._to_channels()
        self.num_pixels += shape[1] * shape[2]
        if self.image is not None:
            from irv2caffe.data.records.image import add_to

            add_to(pixels, self.image)
        else:
            sums = pixels.reshape(-1, shape[0]).sum(axis=0, dtype=np.int64)
            self.channels = [a + int(b) for a, b in zip(self.channels, sums, strict=True)]

    def taken(self) -> Sums:
        """What was added since the last time."""
        image, channels = self.image, self.channels
        sums = Sums(self.shape, image, channels, self.num_pixels, self.is_possible)
        self.clear()
        return sums

    def _to_channels(self) -> None:
        assert self.image is not None
        sums = self.image.reshape(-1, len(self.channels)).sum(axis=0, dtype=np.float64)
        self.channels = [a + round(b) for a, b in zip(self.channels, sums, strict=True)]
        self.image = None


@dataclass
class MeanSums:
    """Sums over the records so far.

    Attributes:
        shape: of all records, or None where they differ, or there is none yet.
        image: sum of all records, height x width x channels, in whole numbers, which float64
            holds exactly; None where their shapes differ.
        channels: sums of the values of B, G, R, where ``image`` is None.
        num_images: that were added.
        num_pixels: of all of them.
        is_possible: records have the same number of channels, of 8 bits.
    """

    shape: Shape | None = None
    image: NDArray[np.float64] | None = None
    channels: list[int] = field(default_factory=list)
    num_images: int = 0
    num_pixels: int = 0
    is_possible: bool = True

    def add(self, sums: Sums, num_images: int) -> None:
        """Adds the sums of so many records."""
        if not sums.is_possible:
            self.is_possible = False
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
            self._forget_images()
            more = sums.channels
            if sums.image is not None:
                more = _channel_sums(sums.image, len(more))
            self.channels = [a + b for a, b in zip(self.channels, more, strict=True)]
        self.num_images += num_images
        self.num_pixels += sums.num_pixels

    def _forget_images(self) -> None:
        if self.image is not None:
            own = _channel_sums(self.image, len(self.channels))
            self.channels = [a + b for a, b in zip(self.channels, own, strict=True)]
        self.image = None
        self.shape = None

    def mean_values(self) -> list[float] | None:
        """Of B, G, R (or gray) over all pixels."""
        if not self.is_possible or not self.num_pixels:
            return None
        sums = self.channels
        if self.image is not None:
            sums = _channel_sums(self.image, len(self.channels))
        return [value / self.num_pixels for value in sums]

    def mean_image(self) -> NDArray[np.float32] | None:
        """Channels x height x width, where all records have one shape."""
        if not self.is_possible or self.image is None or not self.num_images:
            return None
        mean = self.image / self.num_images
        planes = mean[None] if mean.ndim == 2 else mean.transpose(2, 0, 1)
        return np.ascontiguousarray(planes, np.float32)


def _channel_sums(image: NDArray[Any], channels: int) -> list[int]:
    sums = image.reshape(-1, channels).sum(axis=0, dtype=np.float64)
    return [round(value) for value in sums]


def mean_blob(mean: NDArray[np.float32]) -> Any:
    """The mean image as compute_image_mean writes it: a BlobProto with the old dimensions."""
    from irv2caffe.proto import messages

    channels, height, width = mean.shape
    blob = messages.BlobProto(num=1, channels=channels, height=height, width=width)
    blob.data.extend(mean.ravel().tolist())
    return blob
