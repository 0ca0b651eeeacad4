"""Runs an ONNX file in OpenCV's dnn and, where it is installed, in onnxruntime."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

# Of the logits' standard deviation: other programs have faster and coarser convolutions.
TOLERANCE = 1e-3


def programs(path: Path, output: str) -> Iterator[tuple[str, Run]]:
    """The programs that are here, each as a function from one image to a blob.

    Args:
        path: the ONNX file.
        output: name of the blob.
    """
    if find_spec("onnxruntime") is not None:
        yield _in_onnxruntime(path, output)
    yield _in_opencv(path, output)


def _in_onnxruntime(path: Path, output: str) -> tuple[str, Run]:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(session.run([output], {name: image})[0], np.float32)

    return f"onnxruntime {onnxruntime.__version__}", run


def _in_opencv(path: Path, output: str) -> tuple[str, Run]:
    import cv2

    net: Any = cv2.dnn.readNetFromONNX(str(path))

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        net.setInput(image)
        return np.asarray(net.forward(output), np.float32)

    return f"OpenCV {cv2.__version__}", run
