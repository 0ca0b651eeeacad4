"""Weights that are not finite, read from the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from irv2caffe.proto.binary import read_array
from irv2caffe.proto.caffemodel import ModelFile

if TYPE_CHECKING:
    from pathlib import Path


def bad_weights(path: Path) -> tuple[str, ...]:
    """The layers of a ``.caffemodel`` with weights that are NaN or infinite, in their order.

    Raises:
        FormatError: it cannot be read.
    """
    model = ModelFile(path)
    return tuple(
        name
        for name in model.layers
        if not all(np.isfinite(read_array(blob)).all() for blob in model.blobs(name))
    )
