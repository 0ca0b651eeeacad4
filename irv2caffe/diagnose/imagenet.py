"""Which error goes with which loss on ImageNet, as a rule of thumb."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

Error = Literal["top-1 error", "top-5 error"]

# Loss and error of nets of 1,000 classes on ImageNet. They differ by some points between nets.
NUM_CLASSES = 1000
_GUESSING = math.log(NUM_CLASSES)
_POINTS: dict[Error, tuple[tuple[float, float], ...]] = {
    "top-1 error": (
        (0.0, 0.0),
        (0.93, 23.7),  # a ResNet-50: github.com/Cadene/pretrained-models.pytorch issue 149
        (1.24, 30.5),  # MobileNet in Caffe: github.com/shicai/MobileNet-Caffe issue 68
        (1.82, 42.6),  # CaffeNet: BVLC/caffe, models/bvlc_reference_caffenet/readme.md
        (3.1, 65.0),  # common in public logs of the first epochs
        (4.60, 86.8),  # ducha-aiki/caffenet-benchmark, logs/caffenet128_lrn.log, test at 8,000
        (5.75, 96.5),  # the same log, at 3,000
        (_GUESSING, 99.9),
    ),
    "top-5 error": (
        (0.0, 0.0),
        (0.93, 6.7),
        (1.24, 10.8),
        (1.82, 19.6),
        (3.1, 40.0),
        (_GUESSING, 99.5),
    ),
}
SOURCE = (
    "loss and error on ImageNet: BVLC's CaffeNet (1.82, 42.6 %, 19.6 %), shicai/MobileNet-Caffe "
    "issue 68 (1.24, 30.5 %, 10.8 %), public logs of first epochs (3.1, 65 %, 40 %), "
    "ducha-aiki/caffenet-benchmark (4.6, 86.8 %)"
)


def error_of_loss(loss: float, what: Error) -> float:
    """The error in percent that goes with a loss on ImageNet, by interpolation."""
    points = _POINTS[what]
    for (low, before), (high, after) in pairwise(points):
        if loss <= high:
            return before + (loss - low) / (high - low) * (after - before)
    return points[-1][1]
