"""What is done to an image before a net sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before a net sees it: resize, crop, subtract the mean, scale.

    Attributes:
        channels: 3 for B, G, R; 1 for gray.
        height: of the net's input, in pixels.
        width: of the net's input, in pixels.
        mean: subtracted from the values 0 to 255: one number per channel, or a mean image
            [channels, height, width] of the stored size, of which the same crop is taken.
        scale: factor after the mean was subtracted.
        stored: (height, width) that images are resized to before the crop, as in the database of
            the training; None for the size of the input.
        resize: mode of resizing, as make-lmdb calls it.
        interpolation: as make-lmdb calls it.
        source: where these values were found, for the user.
    """

    channels: int
    height: int
    width: int
    mean: NDArray[np.float32]
    scale: float = 1.0
    stored: tuple[int, int] | None = None
    resize: str = "warp"
    interpolation: str = "linear"
    source: str = ""
