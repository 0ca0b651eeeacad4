"""The figures that ``caffe test`` prints, to the digit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from irv2caffe.evaluate.predictions import Predictions

_FLT_MIN = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class CaffeTest:
    """What ``caffe test -iterations N`` prints for the same net and database.

    Attributes:
        batch_size: of the TEST data layer.
        iterations: number of batches, so that each image was in one.
        values: mean of the batches of each output: ``top-1``, ``top-5``, ``loss``.
    """

    batch_size: int
    iterations: int
    values: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        sizes = {"batch_size": self.batch_size, "iterations": self.iterations}
        return {**sizes, **{name: float(self.text(name)) for name in self.values}}

    def text(self, name: str) -> str:
        """A value as it stands in the log: six digits, the default of C++ streams."""
        return f"{self.values[name]:g}"


def as_caffe_test(predictions: Predictions, batch_size: int) -> CaffeTest:
    """Sums as ``caffe test`` does, in float32 and in the same order (tools/caffe.cpp, test()).

    The mean of the batches' means; within a batch, accuracy_layer.cpp counts and
    softmax_loss_layer.cpp adds up the logarithms.

    Args:
        predictions: of whole batches: where the images end, Caffe's data layer begins again with
            the first, and so must the last batch.
        batch_size: of the data layer.
    """
    iterations, rest = divmod(len(predictions), batch_size)
    assert not rest
    ranks = (1, 5) if predictions.num_classes >= 5 else (1,)
    rows = (iterations, batch_size)
    better = predictions.num_better.reshape(rows)
    logs = np.log(np.maximum(predictions.label_probability, _FLT_MIN)).reshape(rows)
    size = np.float32(batch_size)
    outputs = {f"top-{rank}": (better < rank).sum(1).astype(np.float32) / size for rank in ranks}
    outputs["loss"] = -_sum(logs) / size
    values = {
        name: float(_sum(each[None])[0] / np.float32(iterations)) for name, each in outputs.items()
    }
    return CaffeTest(batch_size, iterations, values)


def _sum(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum of each row, added one by one; numpy's own sum adds in pairs."""
    return np.add.accumulate(values, axis=1, dtype=np.float32)[:, -1]
