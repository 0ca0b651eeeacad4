"""Decoding, resizing and encoding of images: the only module that imports cv2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

from irv2caffe.data.records.headers import (
    AFTER_CAFFE,
    find_excess,
    has_16_bits,
    image_kind,
    is_cut_short,
    read_jpeg_header,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from irv2caffe.data.records.headers import JpegHeader
    from irv2caffe.data.records.items import PixelFormat

    Pixels = NDArray[np.uint8]
    Color = tuple[int, int, int]

# The worker processes already use all cores.
cv2.setNumThreads(1)

UNREADABLE = "not an image that can be decoded"
CUT_SHORT = "cut short"
_NO_MEMORY = -4  # cv::Error::StsNoMem
_FILL_GRAY = 127
_END_MARKERS = b"\xff\xd9" * 33_000
_INTERPOLATION = {
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
    "nearest": cv2.INTER_NEAREST,
}
_REDUCED = {
    2: (cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    4: (cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    8: (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
}


class UndecodableImageError(ValueError):
    """A file that cannot be used as an image.

    Attributes:
        reason: a few words, the same for all files with this problem.
        detail: of this file; may be empty.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The bytes of an image file, and its header.

    Attributes:
        data: the file.
        kind: ``jpg``, ``png`` ... by its signature.
        jpeg: the header of a JPEG file.
        exactly_like_caffe: accept what convert_imageset accepts.
    """

    data: bytes
    kind: str
    jpeg: JpegHeader | None
    exactly_like_caffe: bool

    def decode(self, *, gray: bool = False, reduced: int = 1, bits: int | None = None) -> Pixels:
        """The pixels as convert_imageset reads them (ReadImageToCVMat in util/io.cpp).

        Alpha is dropped, gray becomes three equal channels, the EXIF orientation of a JPEG file
        is applied (not that of other formats, which Caffe's OpenCV 4.5.1 ignores).

        Args:
            gray: one channel.
            reduced: 2, 4 or 8 divides both sides while decoding; for JPEG files.
            bits: number of bits that 16-bit files use, to scale them to 8; None uses the upper
                8 of 16, as convert_imageset does.

        Returns:
            uint8, height x width x 3 in B, G, R; height x width if gray.

        Raises:
            UndecodableImageError: not an image, truncated, or not supported by OpenCV.
        """
        if bits is not None and self.has_16_bits:
            values = np.minimum(self.decode_deep(gray=gray) >> (bits - 8), 255)
            return cast("Pixels", values.astype(np.uint8))
        mode = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
        if reduced > 1:
            mode = _REDUCED[reduced][gray]
        if self.jpeg is None:
            mode |= cv2.IMREAD_IGNORE_ORIENTATION
        return cast("Pixels", _decode(self._whole(), mode))

    @property
    def has_16_bits(self) -> bool:
        """Whether its values have 16 bits, by its header."""
        return has_16_bits(self.data, self.kind)

    def decode_deep(self, *, gray: bool = False) -> NDArray[np.uint16]:
        """The unscaled values of a 16-bit file; otherwise like :meth:`decode`."""
        mode = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
        mode |= cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        return _decode(self._whole(), mode)

    def looks_plain(self) -> bool:
        """Whether Caffe certainly decodes the file to the same pixels, by its header."""
        return self.jpeg is not None and self.jpeg.components == 3 and not self.jpeg.has_exif

    def _whole(self) -> bytes:
        """The file; a truncated JPEG file gets the end markers that libjpeg assumes after it.

        As many as the longest segment has bytes, since a file may be truncated inside one.
        """
        if self.exactly_like_caffe and is_cut_short(self.data, self.kind, self.jpeg):
            return self.data + _END_MARKERS if self.jpeg is not None else self.data
        return self.data


def open_image(data: bytes, *, exactly_like_caffe: bool = False) -> ImageFile:
    """Reads the header of an image file.

    Args:
        data: the whole file.
        exactly_like_caffe: accept truncated files, refuse formats that Caffe's OpenCV cannot
            read.

    Raises:
        UndecodableImageError: empty, truncated, or of an unrealistic size.
    """
    if not data:
        raise UndecodableImageError("empty file")
    kind = image_kind(data)
    jpeg = read_jpeg_header(data) if kind == "jpg" else None
    if exactly_like_caffe and kind in AFTER_CAFFE:
        raise UndecodableImageError("a format that Caffe's OpenCV cannot read", kind)
    if (kind == "png" or not exactly_like_caffe) and is_cut_short(data, kind, jpeg):
        raise UndecodableImageError(CUT_SHORT)
    if excess := find_excess(data, kind, jpeg, any_size=exactly_like_caffe):
        raise UndecodableImageError(*excess)
    return ImageFile(data, kind, jpeg, exactly_like_caffe)


def _decode(data: bytes | Pixels, mode: int) -> NDArray[Any]:
    try:
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error as error:
        if error.code == _NO_MEMORY:
            raise MemoryError("an image needs more memory than there is") from error
        text = str(error).strip().splitlines()[-1].strip()
        reason = "too many pixels" if "CV_IO_MAX_IMAGE" in text else UNREADABLE
        raise UndecodableImageError(reason, "" if reason != UNREADABLE else text) from error
    if image is None:
        raise UndecodableImageError(UNREADABLE)
    return cast("NDArray[Any]", image)


def resize(pixels: Pixels, size: tuple[int, int], mode: str, interpolation: str) -> Pixels:
    """Resizes an image.

    Args:
        pixels: uint8 image.
        size: (width, height).
        mode: one of :data:`irv2caffe.data.options.RESIZE_MODES`, except ``none``.
        interpolation: ``linear`` is convert_imageset's, bilinear without antialiasing.
    """
    if mode == "squash":
        return _scaled(pixels, size, interpolation)
    height, width = pixels.shape[:2]
    scales = (size[0] / width, size[1] / height)
    if mode == "short-side":
        scale = min(size) / min(width, height)
        return _scaled(pixels, _times((width, height), scale), interpolation)
    scale = max(scales) if mode == "center-crop" else min(scales)
    inner = _times((width, height), scale)
    if mode == "fill":
        inner = (min(inner[0], size[0]), min(inner[1], size[1]))
        return _padded(_scaled(pixels, inner, interpolation), size)
    inner = (max(inner[0], size[0]), max(inner[1], size[1]))
    left, top = (inner[0] - size[0]) // 2, (inner[1] - size[1]) // 2
    whole = _scaled(pixels, inner, interpolation)
    return np.ascontiguousarray(whole[top : top + size[1], left : left + size[0]])


def _times(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _scaled(pixels: Pixels, size: tuple[int, int], interpolation: str) -> Pixels:
    if max(size) > 65_500:
        raise UndecodableImageError("too long and narrow for this size", f"{size[0]} x {size[1]}")
    return cast("Pixels", cv2.resize(pixels, size, interpolation=_INTERPOLATION[interpolation]))


def _padded(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    canvas = np.full((size[1], size[0], *pixels.shape[2:]), _FILL_GRAY, np.uint8)
    height, width = pixels.shape[:2]
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    canvas[top : top + height, left : left + width] = pixels
    return canvas


def encode_image(pixels: Pixels, kind: str, quality: int = 95) -> Pixels:
    """Encodes an image with OpenCV's defaults, as convert_imageset does.

    Args:
        pixels: uint8 image.
        kind: ``jpg`` or ``png``.
        quality: of JPEG files; 95 is OpenCV's own.
    """
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == "jpg" and quality != 95 else []
    try:
        done, data = cv2.imencode(f".{kind}", pixels, parameters)
    except cv2.error as error:
        raise UndecodableImageError(f"cannot be encoded as {kind}", str(error)) from error
    if not done:
        raise UndecodableImageError(f"cannot be encoded as {kind}")
    return cast("Pixels", data)


def from_planes(data: bytes, pixels: PixelFormat, *, gray: bool) -> Pixels:
    """An image from uncompressed planes of R, G, B (or gray).

    Args:
        data: the planes.
        pixels: their layout.
        gray: one channel.

    Returns:
        uint8, height x width x 3 in B, G, R; height x width if gray.
    """
    planes = np.frombuffer(data, np.uint8).reshape(pixels.channels, pixels.height, pixels.width)
    if pixels.channels == 1:
        return planes[0] if gray else cast("Pixels", cv2.merge([planes[0]] * 3))
    merged = cv2.merge(list(planes[::-1]))
    return cast("Pixels", cv2.cvtColor(merged, cv2.COLOR_BGR2GRAY) if gray else merged)


def write_planes(pixels: Pixels, out: Pixels) -> None:
    """Writes the channels of an image one after another, as a Datum stores them.

    Args:
        pixels: height x width x channels, or height x width.
        out: uint8, one dimension, of the same size.
    """
    planes = out.reshape(-1, *pixels.shape[:2])
    if pixels.ndim == 2:
        planes[0] = pixels
    else:
        cv2.split(pixels, list(planes))


def add_to(pixels: Pixels, sums: NDArray[np.float32]) -> None:
    """Adds an image to a sum of images; exact up to 65,000 of them.

    OpenCV adds one channel several times as fast as three, so they are passed as one.
    """
    height = pixels.shape[0]
    cv2.accumulate(pixels.reshape(height, -1), sums.reshape(height, -1))


def decode_record(data: bytes | Pixels) -> NDArray[Any]:
    """The pixels of a compressed record as Caffe decodes it (DecodeDatumNative in util/io.cpp).

    Any depth, any number of channels, not rotated. Truncated files are not decoded, since Caffe
    decodes from memory.

    Raises:
        UndecodableImageError: not an image.
    """
    if not len(data):
        raise UndecodableImageError("no data")
    if isinstance(data, bytes):  # untrusted; arrays were encoded here
        kind = image_kind(data)
        jpeg = read_jpeg_header(data) if kind == "jpg" else None
        if excess := find_excess(data, kind, jpeg):
            raise UndecodableImageError(*excess)
    return _decode(data, cv2.IMREAD_UNCHANGED)


def draw_text(canvas: Pixels, text: str, left: int, bottom: int, color: Color) -> None:
    """Draws small text into an image; characters that OpenCV's font lacks become ``?``."""
    plain = text.encode("ascii", "replace").decode()
    place = (left, bottom)
    cv2.putText(canvas, plain, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, color, 1, cv2.LINE_AA)
