"""Label smoothing in stock layers: the matrix that InfogainLoss reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.proto.files import blob_from_array, write_binary

if TYPE_CHECKING:
    from pathlib import Path


def write_infogain(path: Path, num_classes: int, smoothing: float) -> None:
    """Writes H = (1 - smoothing) I + smoothing / K as a BlobProto of shape 1x1xKxK.

    InfogainLoss is -sum over k of H[label, k] log p[k]: the cross entropy against a target that
    leaves ``smoothing`` to all K classes alike (arXiv 1512.00567, section 7).

    Args:
        path: the .binaryproto.
        num_classes: K.
        smoothing: 0.1 in the Inception-v3 paper.

    Raises:
        OutputError: the file cannot be written.
    """
    import numpy as np

    matrix = np.full((1, 1, num_classes, num_classes), smoothing / num_classes, np.float32)
    matrix[0, 0] += np.eye(num_classes, dtype=np.float32) * np.float32(1 - smoothing)
    write_binary(path, blob_from_array(matrix))
