"""The process that runs a net: a loop over frames on its standard input and output.

A frame is its length, 8 bytes, the lowest first, and so many bytes. A request is a frame of JSON;
that of a forward pass is followed by a frame with the images. An answer is a frame of JSON; one
with blobs is followed by a frame for each of them. Arrays are float32, the lowest byte first.

This file is also the whole program that pycaffe's interpreter runs: Python 3.7 and numpy, and no
import of this package.
"""

from __future__ import annotations

import importlib
import json
import os
import struct
import sys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

    Array = np.ndarray[Any, Any]

LENGTH = struct.Struct("<Q")
MAX_WORDS_BYTES = 1 << 24
MAX_ARRAY_BYTES = 1 << 33
_PIECE_BYTES = 1 << 20


def read_frame(read: Callable[[int], bytes], limit_bytes: int) -> bytearray | None:
    """The next frame; None at the end of the stream.

    Args:
        read: returns at most so many bytes, none at the end.
        limit_bytes: a longer frame is refused before any of it is stored.

    Raises:
        ValueError: the frame is too long, or the stream ends in it.
    """
    head = _read_exactly(read, LENGTH.size)
    if head is None:
        return None
    size = LENGTH.unpack(bytes(head))[0]
    if size > limit_bytes:
        raise ValueError(f"a frame of {size} bytes")
    body = _read_exactly(read, size)
    if body is None:
        raise ValueError("the stream ends before a frame")
    return body


def _read_exactly(read: Callable[[int], bytes], size: int) -> bytearray | None:
    data = bytearray()
    while len(data) < size:
        piece = read(min(size - len(data), _PIECE_BYTES))
        if not piece:
            if not data:
                return None
            raise ValueError("the stream ends within a frame")
        data += piece
    return data


def frame(data: bytes | memoryview) -> tuple[bytes, bytes | memoryview]:
    """The length of a frame, and its bytes."""
    return LENGTH.pack(len(data)), data


def array_bytes(array: Array) -> memoryview:
    """The values of an array, as a frame holds them."""
    values: Any = np.ascontiguousarray(array, "<f4").reshape(-1)
    return memoryview(values.view(np.uint8))


def serve(net: Any, requests: BinaryIO, answers: BinaryIO, title: str) -> None:
    """Answers requests until their stream ends.

    Args:
        net: with ``forward(images) -> {name: array}``, ``save(path)`` and
            ``gradient(labels) -> {layer: norm}``.
        requests: the stream of requests.
        answers: the stream of answers; the first says that the net is loaded.
        title: what runs the net.
    """

    def answer(words: dict[str, Any], arrays: list[Array]) -> None:
        parts: list[Any] = [json.dumps(words).encode(), *map(array_bytes, arrays)]
        for data in parts:
            answers.writelines(frame(data))
        answers.flush()

    answer({"title": title}, [])
    while True:
        data = read_frame(requests.read, MAX_WORDS_BYTES)
        if data is None:
            return
        request = json.loads(data.decode())
        if request["do"] == "save":
            net.save(request["path"])
            answer({"saved": True}, [])
            continue
        shape = tuple(request["shape"])
        data = read_frame(requests.read, MAX_ARRAY_BYTES)
        if data is None:
            return
        array = np.frombuffer(data, "<f4").reshape(shape)
        if request["do"] == "gradient":
            answer({"norms": net.gradient(array)}, [])
            continue
        blobs = net.forward(array)
        if request["do"] == "summarize":
            blobs = {name: summary(value) for name, value in blobs.items()}
        shapes = {name: list(value.shape) for name, value in blobs.items()}
        answer({"blobs": shapes}, list(blobs.values()))


def summary(value: Array) -> Array:
    """What matters of a blob, for each channel: [channels, 5].

    The number of values that are not finite and of those that are zero, the largest magnitude,
    the sum, and the sum of squares; of finite values only.
    """
    by_image = value.reshape(value.shape[0], value.shape[1] if value.ndim > 1 else 1, -1)
    found = np.zeros((by_image.shape[1], 5))
    for image in by_image:
        is_finite = np.isfinite(image)
        values = np.where(is_finite, image, 0).astype(np.float64)
        found[:, 0] += (~is_finite).sum(1)
        found[:, 1] += (image == 0).sum(1)
        if values.size:
            found[:, 2] = np.maximum(found[:, 2], np.abs(values).max(1))
        found[:, 3] += values.sum(1)
        found[:, 4] += (values * values).sum(1)
    return found


def softmax_gradient(scores: Array, labels: Array) -> Array:
    """The gradient of SoftmaxWithLoss, the mean over the images, by their scores."""
    rows = scores.reshape(len(labels), -1).astype(np.float64)
    shares = np.exp(rows - rows.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    shares[np.arange(len(labels)), labels.astype(int)] -= 1
    diff: Array = (shares / len(labels)).astype(np.float32).reshape(scores.shape)
    return diff


def private_output() -> BinaryIO:
    """Standard output for answers only; what libraries print there goes to standard error."""
    own = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(own, "wb")


class _CaffeNet:
    """A net of pycaffe."""

    def __init__(self, caffe: Any, work: dict[str, Any]) -> None:
        self._net = caffe.Net(work["net"], getattr(caffe, work["phase"]))
        self._net.copy_from(work["weights"])
        self._input = work["input"]
        self._wanted = work["blobs"]

    def forward(self, images: Array) -> dict[str, Array]:
        blob = self._net.blobs[self._input]
        if tuple(blob.data.shape) != images.shape:
            blob.reshape(*images.shape)
            self._net.reshape()
        blob.data[...] = images
        self._net.forward()
        return {name: self._net.blobs[name].data for name in self._wanted}

    def save(self, path: str) -> None:
        self._net.save(path)

    def gradient(self, labels: Array) -> dict[str, float]:
        params, output = self._net.params, self._net.outputs[0]
        for blobs in params.values():
            for blob in blobs:
                blob.diff[...] = 0
        diff = softmax_gradient(self._net.blobs[output].data, labels)
        self._net.backward(**{output: diff})
        return {
            name: float(np.sqrt(sum((blob.diff.astype(np.float64) ** 2).sum() for blob in blobs)))
            for name, blobs in params.items()
        }


def main() -> None:
    """Runs a net in pycaffe, as the one argument, JSON, says."""
    work = json.loads(sys.argv[1])
    answers = private_output()
    sys.path[:] = [place for place in sys.path if place]  # no modules of the working folder
    caffe = importlib.import_module("caffe")
    if work["gpu"] is not None:
        caffe.set_device(work["gpu"])
        caffe.set_mode_gpu()
    else:
        caffe.set_mode_cpu()
    where = "the CPU" if work["gpu"] is None else f"GPU {work['gpu']}"
    title = f"Caffe {getattr(caffe, '__version__', '')} on {where}"
    serve(_CaffeNet(caffe, work), sys.stdin.buffer, answers, title)


if __name__ == "__main__":
    main()
