"""Headers and ends of image files: format, size, truncation and depth without decoding."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

_SIGNATURES = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"\xff\x0a", "jxl"),
    (b"\0\0\0\x0cJXL ", "jxl"),
    (b"\0\0\0\x0cjP  ", "jp2"),
)
# Formats of current OpenCV that the one of Caffe cannot read (4.5.1 in Debian 11).
AFTER_CAFFE = frozenset({"gif", "avif", "jxl"})
MAX_PIXELS = 200_000_000  # of an image; larger ones are treated as damaged or malicious
# A scan of a JPEG file takes a few bytes, but work on all pixels; files have about ten scans.
_MAX_PIXELS_OF_ALL_SCANS = 20 * MAX_PIXELS
_PIXELS_WORTH_A_SCAN = 1 << 16  # the fixed cost of a scan, in pixels

_END_OF_IMAGE = b"\xff\xd9"
_PNG_END = b"IEND\xae\x42\x60\x82"
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])")  # of a segment, or of the end
_MAX_SEGMENTS = 1_000_000
_APP1 = 0xE1
_PNM = re.compile(rb"P[2356](?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+(\d+)\s")
_BITS_PER_SAMPLE, _SHORT = 258, 3  # of TIFF


def image_kind(data: bytes | bytearray | memoryview) -> str:
    """The format by its signature: ``jpg``, ``png`` ...; empty if unknown."""
    start = bytes(data[:16])
    for signature, kind in _SIGNATURES:
        if start.startswith(signature):
            return kind
    if start[4:8] == b"ftyp" and start[8:12] in {b"avif", b"avis", b"mif1"}:
        return "avif"
    return "webp" if start[:4] == b"RIFF" and start[8:12] == b"WEBP" else ""


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """The header of a JPEG file, up to its first scan.

    Attributes:
        width: in pixels, before any EXIF rotation.
        height: in pixels, before any EXIF rotation.
        components: 1 gray, 3 colour, 4 CMYK.
        has_exif: has EXIF data, which may contain an orientation.
        scan: offset of the first scan; None where the file ends before it.
    """

    width: int
    height: int
    components: int
    has_exif: bool
    scan: int | None


def read_jpeg_header(data: bytes) -> JpegHeader:
    """Reads the segments of a JPEG file up to its first scan, or to a malformed one."""
    width = height = components = 0
    has_exif = False
    place, end = 2, len(data)
    while place + 4 <= end:
        if data[place] != 0xFF:  # libjpeg skips bytes between segments
            place = data.find(b"\xff", place)
            if place < 0:
                break
            continue
        marker = data[place + 1]
        if marker == 0xFF:  # padding before a marker
            place += 1
            continue
        if marker in _STANDALONE or marker == 0:
            place += 2
            continue
        if marker == _START_OF_SCAN:
            return JpegHeader(width, height, components, has_exif, place)
        if marker in _START_OF_FRAME and place + 10 <= end:
            height = data[place + 5] << 8 | data[place + 6]
            width = data[place + 7] << 8 | data[place + 8]
            components = data[place + 9]
        elif marker == _APP1 and data[place + 4 : place + 8] == b"Exif":
            has_exif = True
        place += 2 + (data[place + 2] << 8 | data[place + 3])
    return JpegHeader(width, height, components, has_exif, None)


def find_excess(
    data: bytes, kind: str, jpeg: JpegHeader | None, *, any_size: bool = False
) -> tuple[str, str] | None:
    """Why an image would take too much memory or time to decode: (reason, detail), or None.

    Args:
        data: the file.
        kind: of it.
        jpeg: its header, if it is a JPEG file.
        any_size: check the time only.
    """
    if jpeg is not None and _has_too_many_scans(data, jpeg):
        return "too many scans", ""
    if kind == "png" and _has_torn_chunk(data):
        return "damaged", "a part of it is longer than the file"
    most, width, height = MAX_PIXELS, 0, 0
    if jpeg is not None:
        width, height = jpeg.width, jpeg.height
    elif kind == "png" and has_16_bits(data, kind):  # OpenCV's own limit only counts pixels
        width, height = struct.unpack_from(">II", data, 16)
        most = MAX_PIXELS * 3 // 8  # 3 bytes per pixel with 8 bits, 8 with 16 bits and alpha
    if any_size or width * height <= most:
        return None
    return "too many pixels", f"{width} x {height}"


def _has_torn_chunk(data: bytes) -> bool:
    """Whether a PNG chunk is longer than the file; OpenCV allocates memory for its length."""
    place = 8
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"IEND":
            return False
        place += 12 + size
    return place > len(data)


def _has_too_many_scans(data: bytes, jpeg: JpegHeader) -> bool:
    if jpeg.scan is None:
        return False
    pixels = max(jpeg.width * jpeg.height, _PIXELS_WORTH_A_SCAN)
    most = max(1, _MAX_PIXELS_OF_ALL_SCANS // pixels)
    if data.count(b"\xff\xda", jpeg.scan) <= most:  # as in nearly all files
        return False
    place, num_scans = jpeg.scan, 0  # data after the image, such as a video, does not count
    for _ in range(_MAX_SEGMENTS):
        match = _MARKER.search(data, place)
        if match is None or match[1] == _END_OF_IMAGE[1:]:
            return num_scans > most
        num_scans += match[1][0] == _START_OF_SCAN
        place = match.end() + max(2, int.from_bytes(data[match.end() : match.end() + 2], "big"))
    return True


def looks_cut_off(data: bytes | memoryview, kind: str) -> bool:
    """Whether the usual end is missing, so that only decoding shows if the file is complete."""
    ends = {"jpg": _END_OF_IMAGE, "png": _PNG_END}
    return kind not in ends or bytes(data[-len(ends[kind]) :]) != ends[kind]


def is_cut_short(data: bytes, kind: str, jpeg: JpegHeader | None) -> bool:
    """Whether a file lacks the end marker of its format, if there is one.

    OpenCV fills the missing part of a JPEG file with gray, without an error. Inside a scan the
    marker cannot occur by chance: JPEG escapes every 0xFF there.
    """
    if jpeg is not None:
        if jpeg.scan is None:
            return True
        return not data.endswith(_END_OF_IMAGE) and data.rfind(_END_OF_IMAGE, jpeg.scan) < 0
    if kind == "png":
        return data.rfind(_PNG_END) < 0
    if kind == "webp":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return False


def has_16_bits(data: bytes, kind: str) -> bool:
    """Whether a file has 16 bits per channel, of which a Datum stores the upper 8."""
    if kind == "png":
        return data[24:25] == b"\x10"
    if kind == "tiff":
        return _tiff_bits(data) == 16
    match = _PNM.match(data[:1024]) if not kind else None
    return match is not None and len(match[1]) < 6 and int(match[1]) > 255


def _tiff_bits(data: bytes) -> int:
    """BitsPerSample of the first image of a TIFF file; its default, 1, if unknown."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(f"{order}HHI", data, place)
            if tag == _BITS_PER_SAMPLE and kind == _SHORT:
                at = place + 8
                if number > 2:
                    (at,) = struct.unpack_from(f"{order}I", data, at)
                return int(struct.unpack_from(f"{order}H", data, at)[0])
    except struct.error:
        pass
    return 1
