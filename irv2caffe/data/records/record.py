"""Conversion of one image file to one record, in the way the options of the database say."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.data.records import augment, datum, image
from irv2caffe.data.records.depth import Depth, largest_value
from irv2caffe.data.records.image import UndecodableImageError, open_image
from irv2caffe.data.records.items import GONE, MAX_FILE_BYTES, OF_ONE_FILE, WHOLE_FILE, reason_of
from irv2caffe.data.records.mean import UnitSums, shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from irv2caffe.data.options import BuildOptions
    from irv2caffe.data.records.augment import Distortion
    from irv2caffe.data.records.image import ImageFile
    from irv2caffe.data.records.items import Item, PixelFormat
    from irv2caffe.data.records.source_identity import SourceIdentity

    Pixels = NDArray[np.uint8]


class RecordBuffer:
    """Memory that records are written to, one after another.

    Attributes:
        extra: records that had no room in it, in memory of their own.
    """

    def __init__(self, memory: Pixels) -> None:
        self._memory = memory
        self._used = 0
        self.extra: list[Pixels] = []

    def take(self, size: int) -> tuple[Pixels, tuple[int, int]]:
        """Memory for ``size`` bytes, and its place: (offset, size); offset -1 means ``extra``."""
        start = self._used
        if start + size > len(self._memory):
            self.extra.append(np.empty(size, np.uint8))
            return self.extra[-1], (-1, size)
        self._used += size
        return self._memory[start : start + size], (start, size)

    def put(self, head: bytes, size: int, tail: bytes) -> tuple[Pixels, tuple[int, int]]:
        """Writes the head and the tail of a record; memory for its body, and its place."""
        memory, place = self.take(len(head) + size + len(tail))
        memory[: len(head)] = np.frombuffer(head, np.uint8)
        memory[len(head) + size :] = np.frombuffer(tail, np.uint8)
        return memory[len(head) : len(head) + size], place


class RecordMaker:
    """Makes records by the options of a database."""

    def __init__(
        self,
        options: BuildOptions,
        root: Path,
        stores: Sequence[int] = (),
        pixels: PixelFormat | None = None,
        identity: SourceIdentity | None = None,
    ) -> None:
        """Stores where the images come from.

        Args:
            options: of the database.
            root: the folder that names start from.
            stores: descriptors of the files that hold many images.
            pixels: layout of the pixels in them; None where they hold image files.
            identity: of the source, to find out when it has disappeared.
        """
        self._options = options
        self._identity = identity
        self._root = str(root)
        self._stores = stores
        self._format = pixels
        self.sums = UnitSums()
        self.depth = Depth()

    def check_source(self) -> None:
        """Checks, for images that are files of their own, that the source is still there.

        Raises:
            OSError: it has disappeared.
        """
        if self._identity is not None and not self._stores:
            self._identity.check()

    def make(self, item: Item, index: int, buffer: RecordBuffer) -> tuple[int, int]:
        """Writes the record of an image into a buffer.

        Args:
            item: the image.
            index: its place in the database.
            buffer: for the record.

        Returns:
            The record's place in the buffer: (offset, size).

        Raises:
            UndecodableImageError: not an image, or not a complete one.
            OSError: the disk fails.
        """
        data = self._read(item)
        if self._format is not None:
            pixels = image.from_planes(data, self._format, gray=self._options.gray)
            pixels = self._resized(pixels, self._distortion(pixels.shape[:2], index))
        else:
            file = open_image(data, exactly_like_caffe=self._options.exactly_like_caffe)
            pixels = self._decoded(file, index)
            if self._is_of_kind(item.name) and self._can_be_copied(file, pixels):
                return self._put_file(np.frombuffer(data, np.uint8), item.label, buffer)
        if self._options.encoded is None:
            return self._put_pixels(pixels, item.label, buffer)
        encoded = image.encode_image(pixels, self._options.encoded, self._options.quality)
        changes = self._options.encoded == "jpg" and self._options.is_mean_exact(index)
        self._add_to_mean(image.decode_record(encoded) if changes else pixels)
        return self._put_file(encoded, item.label, buffer)

    def _read(self, item: Item) -> bytes:
        if item.store == WHOLE_FILE:
            try:
                return read_file(f"{self._root}/{item.name}")
            except UndecodableImageError:
                if self._identity is not None:
                    self._identity.check_folder_of(item.name)
                raise
        data = os.pread(self._stores[item.store], item.size, item.offset)
        if len(data) < item.size:
            raise OSError(errno.EIO, "the archive ends before it")
        return data

    def _decoded(self, file: ImageFile, index: int) -> Pixels:
        """The pixels of an image file, cropped and resized by the options."""
        gray = self._options.gray
        if not self._options.fast_decode or file.jpeg is None:
            pixels = file.decode(gray=gray, bits=self._options.bit_depth)
            if file.has_16_bits:
                self.depth.add(largest_value(file, pixels, self._options.bit_depth))
            return self._resized(pixels, self._distortion(pixels.shape[:2], index))
        shape = (file.jpeg.height, file.jpeg.width)
        if self._options.augment is not None and file.jpeg.has_exif:
            pixels = file.decode(gray=gray)  # it may be rotated, which changes the shape
            return self._resized(pixels, self._distortion(pixels.shape[:2], index))
        distort = self._distortion(shape, index)
        reduced = self._reduction(shape, distort, may_rotate=file.jpeg.has_exif)
        return self._resized(file.decode(gray=gray, reduced=reduced), distort)

    def _reduction(
        self, shape: tuple[int, int], distort: Distortion | None, *, may_rotate: bool
    ) -> int:
        """The largest factor to decode at a smaller size that still needs no enlarging."""
        size = self._options.size
        if size is None:
            return 1
        height, width = shape
        if distort is not None:
            height, width = int(height * distort.height), int(width * distort.width)
        scales = [width / size[0], height / size[1]]
        if may_rotate:
            scales += [height / size[0], width / size[1]]
        if self._options.resize_mode == "short-side":
            scales = [min(width, height) / min(size)]
        return next((factor for factor in (8, 4, 2) if min(scales) >= factor), 1)

    def _distortion(self, shape: tuple[int, ...], index: int) -> Distortion | None:
        wanted = self._options.augment
        if wanted is None:
            return None
        return augment.distortion(wanted, (shape[0], shape[1]), self._options.seed, index)

    def _resized(self, pixels: Pixels, distort: Distortion | None) -> Pixels:
        if distort is not None:
            pixels = augment.cropped(pixels, distort)
        if self._options.size is not None:
            mode, interpolation = self._options.resize_mode, self._options.interpolation
            pixels = image.resize(pixels, self._options.size, mode, interpolation)
        return augment.recolored(pixels, distort) if distort is not None else pixels

    def _is_of_kind(self, name: str) -> bool:
        """Whether convert_imageset would copy a file of this name (matchExt in util/io.cpp)."""
        wanted = self._options.encoded
        if wanted is None or self._options.size is not None:
            return False
        suffix = name.rpartition(".")[2].lower()
        return suffix == wanted or (wanted == "jpg" and suffix == "jpeg")

    def _can_be_copied(self, file: ImageFile, pixels: Pixels) -> bool:
        """Whether the file may be stored unchanged; if so, it is added to the mean.

        convert_imageset always copies it. Here only where Caffe, decoding it in training, gets
        the pixels of a raw database: the same orientation and number of channels, 8 bits.
        """
        if file.looks_plain() and not self._options.gray:
            self._add_to_mean(pixels)
            return True
        try:
            decoded: NDArray[Any] = image.decode_record(file.data)
        except UndecodableImageError:
            return self._options.exactly_like_caffe
        is_same = decoded.dtype == np.uint8 and np.array_equal(decoded, pixels)
        if is_same or self._options.exactly_like_caffe:
            self._add_to_mean(decoded)
            return True
        return False

    def _add_to_mean(self, pixels: NDArray[Any]) -> None:
        if self._options.mean != "none":
            self.sums.add(pixels)

    def _put_pixels(self, pixels: Pixels, label: int, buffer: RecordBuffer) -> tuple[int, int]:
        self._add_to_mean(pixels)
        head, tail = datum.raw_head(shape_of(pixels)), datum.raw_tail(label)
        body, place = buffer.put(head, pixels.size, tail)
        image.write_planes(pixels, body)
        return place

    def _put_file(self, data: Pixels, label: int, buffer: RecordBuffer) -> tuple[int, int]:
        head, tail = datum.encoded_head(len(data)), datum.encoded_tail(label)
        body, place = buffer.put(head, len(data), tail)
        body[:] = data
        return place


def read_file(path: str) -> bytes:
    """All bytes of a file.

    Raises:
        UndecodableImageError: missing, no regular file, not readable for this user, or huge.
        OSError: the disk fails.
    """
    try:
        # O_NONBLOCK: opening a named pipe would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL in the name
        raise UndecodableImageError(GONE) from error
    except OSError as error:
        if error.errno not in OF_ONE_FILE:
            raise
        raise UndecodableImageError(reason_of(error)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            is_folder = stat.S_ISDIR(status.st_mode)
            raise UndecodableImageError("a folder" if is_folder else "not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise UndecodableImageError("too large for an image", f"{status.st_size:,} bytes")
        return _all_of(descriptor, status.st_size)
    finally:
        os.close(descriptor)


def _all_of(descriptor: int, size: int) -> bytes:
    data = os.read(descriptor, size + 1)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data
