"""What the net is fed with in training and in tests."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.diagnose.measured import InputStatistics
from irv2caffe.inference.crops import UnfitImageError
from irv2caffe.inference.feeding import feed

if TYPE_CHECKING:
    from irv2caffe.diagnose.measure.subject import Subject
    from irv2caffe.inference.images import Images
    from irv2caffe.inference.preprocessing import Preprocessing

_NUM_IMAGES = 256


def inputs(subject: Subject) -> dict[str, Any]:
    """Means and standard deviations of the data blob in both phases, of the centre of images.

    Raises:
        InputError: the training or the validation images are not known.
    """
    seed = subject.request.seed
    train = subject.images(subject.train, seed=seed)
    val = subject.images(subject.val, seed=seed)
    return {
        "train_input": _statistics(train, subject.training_preprocessing),
        "val_input": _statistics(val, subject.model.preprocessing),
    }


def _statistics(images: Images, made: Preprocessing) -> InputStatistics | None:
    sums = []
    for image in islice(images, _NUM_IMAGES):
        try:
            values = feed(made, image.pixels)[0].astype(np.float64)
        except UnfitImageError:
            continue
        sums.append([values.mean((1, 2)), (values**2).mean((1, 2))])
    if len(sums) < 2:
        return None
    found = np.array(sums)
    mean, square = found.mean(0)
    error = found[:, 0].std(0, ddof=1) / np.sqrt(len(sums))
    std = np.sqrt(np.maximum(0, square - mean**2))
    values = [tuple(each.tolist()) for each in (mean, std, error)]
    return InputStatistics(values[0], values[1], values[2], len(sums))
