"""Decode, resize, encode: the only module that imports cv2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import cv2

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

# Images are decoded side by side already; OpenCV's own threads would only get in each other's way.
cv2.setNumThreads(1)


class UndecodableImageError(ValueError):
    """A file that OpenCV cannot read as an image."""


def read_image(path: Path, size: tuple[int, int] | None, *, gray: bool = False) -> Pixels:
    """An image as convert_imageset reads it (ReadImageToCVMat in util/io.cpp).

    Alpha is dropped, gray becomes three equal channels, EXIF orientation is applied.

    Args:
        path: of the image file.
        size: (width, height) to squash to, bilinear without antialiasing; None keeps its own.
        gray: one channel.

    Returns:
        uint8, height x width x 3 in B, G, R; height x width if gray.

    Raises:
        UndecodableImageError: no image, or none that OpenCV knows.
    """
    mode = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
    try:
        image: Any = cv2.imread(str(path), mode)
    except (cv2.error, UnicodeError) as error:  # a size beyond OpenCV's limit; a broken file name
        raise UndecodableImageError(str(error).splitlines()[-1].strip()) from error
    if image is None:
        raise UndecodableImageError(reason(path))
    if size is not None:
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return cast("Pixels", image)


def reason(path: Path) -> str:
    """Why OpenCV returned nothing for a file; it does not say so itself."""
    if not path.is_file():
        return "no such file"
    if path.stat().st_size == 0:
        return "empty file"
    return "not an image that can be decoded"


def encode_image(pixels: Pixels, kind: str) -> bytes:
    """A compressed image file with OpenCV's defaults (JPEG quality 95), as the tool makes it.

    Args:
        pixels: uint8 image.
        kind: ``jpg`` or ``png``.
    """
    done, data = cv2.imencode(f".{kind}", pixels)
    if not done:
        raise UndecodableImageError(f"cannot be encoded as {kind}")
    return data.tobytes()


def decoded_shape(data: bytes) -> tuple[int, int, int]:
    """(channels, height, width) of a compressed image.

    Raises:
        UndecodableImageError: no image.
    """
    import numpy as np

    if not data:
        raise UndecodableImageError("no data")
    image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise UndecodableImageError("not an image that can be decoded")
    return (1 if image.ndim == 2 else image.shape[2]), image.shape[0], image.shape[1]
