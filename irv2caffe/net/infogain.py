"""The matrix with which InfogainLoss smooths labels and weights classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.atomic import atomic_file, write_error
from irv2caffe.proto import messages, wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from irv2caffe.config import NetOptions

_DATA = messages.BlobProto.DESCRIPTOR.fields_by_name["data"].number


def needs_infogain(options: NetOptions) -> bool:
    """Whether the training loss needs a matrix."""
    return options.label_smoothing > 0 or options.class_weights is not None


def write_infogain(
    path: Path, num_classes: int, smoothing: float, weights: Sequence[float] = ()
) -> None:
    """Writes H = diag(weights) ((1 - smoothing) I + smoothing / K) as a BlobProto of 1x1xKxK.

    InfogainLoss is -sum over k of H[label, k] log p[k]: the cross entropy with a target in which
    all K classes share ``smoothing`` (arXiv 1512.00567, section 7), times the weight of the image's
    class. Its gradient multiplies p by the sum of the row (infogain_loss_layer.cpp, Backward_cpu),
    so rows need not sum to 1. The file is written row by row: for 20,000 classes it has 1.6 GB, and
    as a message it would take four times that.

    Args:
        path: the .binaryproto.
        num_classes: K.
        smoothing: 0.1 in the Inception-v3 paper; 0 for none.
        weights: of the classes; empty for equal weights.

    Raises:
        OutputError: the file cannot be written.
    """
    head = wire.tag(_DATA, wire.LENGTH) + wire.varint(4 * num_classes * num_classes)
    shape = messages.BlobProto()
    shape.shape.dim.extend([1, 1, num_classes, num_classes])
    with atomic_file(path) as aside:
        try:
            with aside.open("wb") as stream:
                stream.write(head)
                for row in _rows(num_classes, smoothing, weights):
                    stream.write(row.data)
                stream.write(shape.SerializeToString(deterministic=True))
        except OSError as error:
            raise write_error(path, error) from error


def _rows(
    num_classes: int, smoothing: float, weights: Sequence[float]
) -> Iterator[NDArray[np.float32]]:
    """The rows of H, one after the other in the same array."""
    import numpy as np

    share = np.float32(smoothing / num_classes)
    row = np.full(num_classes, share, "<f4")
    for label in range(num_classes):
        row[label] = share + np.float32(1 - smoothing)
        yield row * np.float32(weights[label]) if weights else row
        row[label] = share
