"""Runs an ONNX file in OpenCV's dnn and, where it is installed, in onnxruntime."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.errors import OutputError

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

    title = f"OpenCV {cv2.__version__}"
    try:
        net: Any = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise _refused(title, error) from error

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            net.setInput(image)
            return np.asarray(net.forward(output), np.float32)
        except cv2.error as error:
            raise _refused(title, error) from error

    return title, run


def _refused(title: str, error: Exception) -> OutputError:
    words = " ".join(str(getattr(error, "err", "") or error).split())[:300]
    return OutputError(
        f"net.onnx cannot be run in {title}: {words}",
        "nothing was written; without --onnx the bundle is for programs that read Caffe's files",
    )
