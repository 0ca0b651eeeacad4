"""Images of 16 bits a channel whose values use fewer: their upper 8 bits are nearly black."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from irv2caffe.data.records.image import ImageFile

_DARK = 64  # no value of a record reaches it: 14 bits or fewer were taken for 16
_BLACK = 32  # that is less sure where nobody knows what the images were
_DEPTHS = (8, 10, 12, 14)  # of cameras and scanners


@dataclass
class Depth:
    """Images of 16 bits a channel.

    Attributes:
        num_images: how many they are.
        largest: the largest value in them; at least that, where it uses all 16 bits.
    """

    num_images: int = 0
    largest: int = 0

    def add(self, largest: int, num_images: int = 1) -> None:
        """Counts images with their largest value."""
        self.num_images += num_images
        self.largest = max(self.largest, largest)

    def taken(self) -> tuple[int, int]:
        """What was added since the last time."""
        values = self.num_images, self.largest
        self.num_images = self.largest = 0
        return values

    def findings(self, num_records: int, bits: int | None) -> list[str]:
        """What is wrong with the records of these images.

        Args:
            num_records: in the database.
            bits: that the values were said to use; None took the upper 8 of 16.
        """
        if not self.num_images:
            return []
        what = f"{self.num_images:,} of {num_records:,} images have 16 bits"
        if bits is not None:
            if self.largest < 1 << bits:
                return []
            largest = f"values up to {self.largest:,}"
            return [f"{what} and {largest}, which --bit-depth {bits} cuts off: they are white"]
        if self.largest >= _DARK << 8:
            return []
        used = next(depth for depth in _DEPTHS if self.largest < 1 << depth)
        why = "their records, which hold the upper 8 bits, are nearly black"
        ways = f"--bit-depth {used} scales them, 16 takes them as they are"
        return [f"{what}, but no value above {self.largest:,}: {why}; {ways}"]


def largest_value(file: ImageFile, pixels: NDArray[Any], bits: int | None) -> int:
    """The largest value of a 16-bit file; exact where something would be said of it.

    Args:
        file: the image.
        pixels: of 8 bits, as decoded with these ``bits``.
        bits: that its values were said to use, or None.
    """
    largest = int(pixels.max())
    is_exact = bits is not None or largest < _DARK
    return int(file.decode_deep().max()) if is_exact else (largest << 8) + 255


def is_dark(largest: int) -> bool:
    """Whether records, none of which has a larger value, are nearly black."""
    return largest < _BLACK


def words_on_dark_records(largest: int) -> str:
    """What is wrong with such records of any origin."""
    why = "were images of 16 bits stored whose values use fewer? make-lmdb --bit-depth scales them"
    return f"no value above {largest} of 255: the records are nearly black; {why}"
