"""Whether two nets give the same logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-4  # of the logits' standard deviation, for the same arithmetic in another order
RANKS = 5


@dataclass(frozen=True)
class Comparison:
    """Two nets on the same images.

    Attributes:
        num_images: images that both saw.
        deviation: standard deviation of the logits of the first, over images and classes.
        largest: largest difference of a logit, as a share of ``deviation``.
        same_best: images with the same best class.
        same_ranking: images with the same best classes (up to five) in the same order; classes
            whose logits are closer than what is tolerated may be in any.
        tolerance: the largest difference that is tolerated, as a share of ``deviation``.
    """

    num_images: int
    deviation: float
    largest: float
    same_best: int
    same_ranking: int
    tolerance: float

    @property
    def passes(self) -> bool:
        """Whether both are the same net but for rounding."""
        return self.largest <= self.tolerance and self.same_ranking == self.num_images

    def text(self) -> str:
        """The result in words."""
        n = self.num_images
        return (
            f"largest difference {self.largest:.1e} of the logits' standard deviation; same best "
            f"class {self.same_best} of {n}, same ranking {self.same_ranking} of {n}"
        )


def compare(
    wanted: NDArray[Any], found: NDArray[Any], *, tolerance: float = TOLERANCE
) -> Comparison:
    """Compares logits.

    Args:
        wanted: [images, classes] of the first net.
        found: of the second.
        tolerance: the largest difference that is tolerated, as a share of their deviation.
    """
    wanted, found = (np.asarray(each, "f8").reshape(len(each), -1) for each in (wanted, found))
    deviation = float(wanted.std())
    gap = np.abs(found - wanted).max() if np.isfinite(found).all() else np.inf
    share = float(gap) / deviation if deviation else float(gap > 0)
    best = [each.argmax(1) for each in (wanted, found)]
    order = np.argsort(-wanted, axis=1, kind="stable")[:, : RANKS + 1]
    theirs = np.take_along_axis(found, order, 1)
    ours = np.take_along_axis(wanted, order, 1)
    tie = 2 * min(share, tolerance) * deviation  # what rounding alone can turn round
    turned = (np.diff(theirs, axis=1) > 0) & (-np.diff(ours, axis=1) > tie)
    return Comparison(
        len(wanted),
        deviation,
        share,
        int((best[0] == best[1]).sum()),
        int((~turned.any(axis=1)).sum()),
        tolerance,
    )
