"""Crop, mirror, mean and scale, as Caffe's DataTransformer applies them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.data.options import Augment
from irv2caffe.data.records.augment import Distortion, cropped, distortion
from irv2caffe.data.records.image import resize
from irv2caffe.engine.data.pictures import Picture, picture_of
from irv2caffe.errors import FormatError, InputError, UsageError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_array, read_binary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from irv2caffe.shapes.phases import Phase

    Shape = tuple[int, int, int]

NUM_DRAWS = 3  # of random numbers for a picture


@dataclass(frozen=True, slots=True)
class View:
    """What becomes of one picture.

    Attributes:
        pixels: the cropped picture, not mirrored; channels x height x width.
        top: of the crop, in the mean image too.
        left: of the crop.
        mirrored: whether it is mirrored.
        distort: colours to be changed; None for none.
    """

    pixels: NDArray[Any]
    top: int
    left: int
    mirrored: bool
    distort: Distortion | None = None


class Transform:
    """The ``transform_param`` of a layer.

    Attributes:
        shape: of the transformed pictures: channels, height, width.
        mean: float32; the mean image (channels x height x width of a record), the mean of each
            channel (channels x 1 x 1), or None.
        scale: factor after the mean is subtracted.
        mirrors: whether pictures are mirrored at random, in both phases as in Caffe.
    """

    def __init__(
        self, layer: Any, phase: Phase, record: Shape, *, augment: str = "", seed: int = 0
    ) -> None:
        """Checks the parameters against the first record.

        Args:
            layer: a LayerParameter with ``transform_param``.
            phase: crops are random in ``TRAIN``, central in ``TEST``.
            record: channels, height and width of the first record.
            augment: ``inception`` for random areas, aspect ratios and colours in ``TRAIN``.
            seed: of ``augment``.

        Raises:
            InputError: what Caffe refuses.
        """
        param = layer.transform_param
        self.scale = np.float32(param.scale)
        self.mirrors = bool(param.mirror)
        self._crop = int(param.crop_size)
        self._is_random = phase == "TRAIN" and self._crop > 0
        self._augment = _augment(layer, augment) if phase == "TRAIN" else None
        self._seed = seed
        self._name = layer.name
        self.mean = _mean(layer, record)
        channels, height, width = record
        self.shape = (channels, self._crop or height, self._crop or width)
        self._record_size = record[1:] if self.has_mean_image else None

    @property
    def has_mean_image(self) -> bool:
        """Whether the mean depends on the place in the record."""
        return self.mean is not None and self.mean.shape[1:] != (1, 1)

    @property
    def recolors(self) -> bool:
        """Whether colours are changed."""
        return self._augment is not None

    def view(self, picture: Picture, draws: NDArray[np.uint32]) -> View:
        """Decides on crop and mirror of a picture.

        Args:
            picture: one that :meth:`check` accepts.
            draws: ``NUM_DRAWS`` random numbers, used as Caffe uses its own: modulo.
        """
        mirrored = self.mirrors and bool(draws[0] & 1)
        if self._augment is not None:
            return self._distorted(picture, draws, mirrored=mirrored)
        if not self._crop:
            return View(picture.pixels, 0, 0, mirrored)
        _, height, width = picture.pixels.shape
        room = (height - self._crop, width - self._crop)
        if self._is_random:
            top, left = int(draws[1]) % (room[0] + 1), int(draws[2]) % (room[1] + 1)
        else:
            top, left = room[0] // 2, room[1] // 2
        crop = picture.pixels[:, top : top + self._crop, left : left + self._crop]
        return View(crop, top, left, mirrored)

    def check(self, shape: tuple[int, ...]) -> None:
        """Checks a picture as Caffe does.

        Args:
            shape: channels, height, width.

        Raises:
            FormatError: it does not fit.
        """
        channels, height, width = shape
        problem = ""
        if channels != self.shape[0]:
            problem = f"the layer has {self.shape[0]} channels (force_color makes all alike)"
        elif self._record_size is not None and (height, width) != self._record_size:
            problem = "the mean image has another"
        elif self._crop > min(height, width):
            problem = f"smaller than crop_size {self._crop}"
        elif not self._crop and (height, width) != self.shape[1:]:
            problem = "the first record has another"
        if problem:
            raise FormatError(f"it has the shape {channels} x {height} x {width}; {problem}")

    def _distorted(self, picture: Picture, draws: NDArray[np.uint32], *, mirrored: bool) -> View:
        assert self._augment is not None
        number = int(draws[1]) << 32 | int(draws[2])
        _, height, width = picture.pixels.shape
        distort = distortion(self._augment, (height, width), self._seed, number)
        crop = cropped(picture.pixels.transpose(1, 2, 0), distort)
        size = (self._crop, self._crop)
        image = resize(np.ascontiguousarray(crop), size, "squash", "linear")
        return View(picture_of(image, 0).pixels, 0, 0, mirrored, distort)


def _augment(layer: Any, name: str) -> Augment | None:
    if not name:
        return None
    if name != "inception":
        raise UsageError(f"--augment {name}", "there is one: inception")
    if not layer.transform_param.crop_size:
        raise InputError(
            f"layer {layer.name!r}: --augment needs crop_size, the size of its result",
            "set crop_size in transform_param",
        )
    if layer.transform_param.HasField("mean_file"):
        raise InputError(
            f"layer {layer.name!r}: --augment does not go with mean_file, a mean of whole records",
            "use mean_value",
        )
    return Augment()


def _mean(layer: Any, record: Shape) -> NDArray[np.float32] | None:
    """The mean of a layer in the shape in which it is subtracted."""
    param = layer.transform_param
    values = list(param.mean_value)
    if param.HasField("mean_file"):
        if values:
            raise InputError(
                f"layer {layer.name!r}: cannot specify mean_file and mean_value at the same time"
            )
        return _mean_image(Path(param.mean_file), record)
    if not values:
        return None
    if len(values) not in {1, record[0]}:
        raise InputError(
            f"layer {layer.name!r}: {len(values)} mean_value for {record[0]} channels",
            "specify either 1 mean_value or as many as channels",
        )
    values *= record[0] if len(values) == 1 else 1
    return np.array(values, np.float32).reshape(-1, 1, 1)


def _mean_image(path: Path, record: Shape) -> NDArray[np.float32]:
    mean = read_array(read_binary(path, messages.BlobProto)).astype(np.float32)
    if mean.ndim > 4 or (mean.ndim == 4 and mean.shape[0] != 1):
        raise FormatError(f"a mean of shape {mean.shape}", path=path)
    planes: NDArray[np.float32] = mean.reshape(mean.shape[-3:])
    if planes.shape != record:
        raise FormatError(
            f"a mean of shape {planes.shape}, the records have {record}",
            "compute it from this database",
            path=path,
        )
    return planes
