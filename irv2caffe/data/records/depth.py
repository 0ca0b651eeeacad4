"""Detection of 16-bit images that use fewer bits: their upper 8 bits are nearly black."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from irv2caffe.data.records.image import ImageFile

_DARK = 64  # no value of a record reaches it: the images use 14 bits or fewer
_BLACK = 32  # the same for records of unknown origin, where it is less certain
_DEPTHS = (8, 10, 12, 14)  # of cameras and scanners


@dataclass
class Depth:
    """Statistics of the images with 16 bits per channel.

    Attributes:
        num_images: how many there are.
        largest: the largest value in them; where it uses all 16 bits, a lower bound.
    """

    num_images: int = 0
    largest: int = 0

    def add(self, largest: int, num_images: int = 1) -> None:
        """Counts images with their largest value."""
        self.num_images += num_images
        self.largest = max(self.largest, largest)

    def taken(self) -> tuple[int, int]:
        """(num_images, largest) so far; this object starts again from zero."""
        values = self.num_images, self.largest
        self.num_images = self.largest = 0
        return values

    def findings(self, num_records: int, bits: int | None) -> list[str]:
        """Problems with the records of these images.

        Args:
            num_records: in the database.
            bits: value of ``--bit-depth``; None took the upper 8 of 16 bits.
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
    """The largest value of a 16-bit file; exact where :meth:`Depth.findings` depends on it."""
    largest = int(pixels.max())
    is_exact = bits is not None or largest < _DARK
    return int(file.decode_deep().max()) if is_exact else (largest << 8) + 255


def is_dark(largest: int) -> bool:
    """Whether records with this largest value are nearly black."""
    return largest < _BLACK


def words_on_dark_records(largest: int) -> str:
    """The finding on records that are nearly black, whoever made them."""
    why = "were images of 16 bits stored whose values use fewer? make-lmdb --bit-depth scales them"
    return f"no value above {largest} of 255: the records are nearly black; {why}"
