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
        net: with ``forward(images) -> {name: array}`` and ``save(path)``.
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
        blobs = net.forward(np.frombuffer(data, "<f4").reshape(shape))
        shapes = {name: list(value.shape) for name, value in blobs.items()}
        answer({"blobs": shapes}, list(blobs.values()))


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
