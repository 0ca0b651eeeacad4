"""What is done to an image before a net sees it, as a value and as files of a bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.atomic import write_bytes, write_text
from irv2caffe.data.options import INTERPOLATIONS, RESIZE_MODES
from irv2caffe.data.records.mean import mean_blob
from irv2caffe.errors import FormatError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_array, read_binary
from irv2caffe.system import read_json_object

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FILE = "preprocessing.json"
MEAN_FILE = "mean.binaryproto"
MAX_SIDE = 4096  # of images for a net; a small file must not make large arrays
_LEAST, _MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
_MODES = {
    "squash": "the aspect ratio is not kept",
    "short-side": "the shorter side becomes so long, the aspect ratio is kept",
    "center-crop": "the aspect ratio is kept, what sticks out is cut off",
    "fill": "the aspect ratio is kept, the rest is filled with gray",
}
_INTERPOLATIONS = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest neighbour"}


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before a net sees it: resize, crop, subtract the mean, scale.

    Attributes:
        channels: 3 for B, G, R; 1 for gray.
        height: of the net's input, in pixels.
        width: of the net's input, in pixels.
        mean: subtracted from the values 0 to 255: one number per channel, or a mean image
            [channels, height, width] of the stored size, of which the same crop is taken.
        scale: factor after the mean was subtracted.
        stored: (height, width) that images are resized to before the crop, as in the database of
            the training; None for the size of the input.
        resize: mode of resizing, as make-lmdb calls it; ``none`` crops images as they are.
        interpolation: as make-lmdb calls it.
        source: where these values were found, for the user.
    """

    channels: int
    height: int
    width: int
    mean: NDArray[np.float32]
    scale: float = 1.0
    stored: tuple[int, int] | None = None
    resize: str = "squash"
    interpolation: str = "linear"
    source: str = ""

    @property
    def has_mean_image(self) -> bool:
        """Whether the mean differs from place to place."""
        return self.mean.ndim == 3

    @property
    def resized_to(self) -> tuple[int, int] | None:
        """(height, width) that images are resized to; None where they keep their size."""
        if self.resize == "none":
            return None
        return self.stored or (self.height, self.width)

    def sentence(self) -> str:
        """All of it in one sentence, for a person who writes a program of their own."""
        parts = []
        if size := self.resized_to:
            how = _INTERPOLATIONS.get(self.interpolation, self.interpolation)
            parts.append(f"resize to {size[1]} x {size[0]} pixels ({how}; {_MODES[self.resize]})")
        if self.resized_to != (self.height, self.width) or self.resize == "short-side":
            parts.append(f"take the centre {self.width} x {self.height}")
        order = "channels in the order B, G, R" if self.channels == 3 else "one channel, gray"
        parts.append(f"{order}, values 0 to 255")
        if self.has_mean_image:
            parts.append(f"subtract the same part of the mean image {MEAN_FILE}")
        elif self.mean.any():
            parts.append(f"subtract {' '.join(f'{value:.9g}' for value in self.mean)}")
        if self.scale != 1:
            parts.append(f"multiply by {self.scale:.9g}")
        parts.append(f"store as float32 planes, {self.channels} x {self.height} x {self.width}")
        text = ", ".join(parts)
        return text[0].upper() + text[1:] + "."

    def as_dict(self) -> dict[str, Any]:
        """The values for JSON; a mean image is named, and stands in a file of its own."""
        resize = None
        if size := self.resized_to:
            how = {"mode": self.resize, "interpolation": self.interpolation}
            resize = {"height": size[0], "width": size[1], **how}
        mean: dict[str, Any] = {"mean": [float(f"{value:.9g}") for value in self.mean.ravel()[:4]]}
        if self.has_mean_image:
            mean = {"mean_file": MEAN_FILE}
        return {
            "sentence": self.sentence(),
            "channels": self.channels,
            "channel_order": "BGR" if self.channels == 3 else "gray",
            "resize": resize,
            "crop": {"height": self.height, "width": self.width, "place": "centre"},
            **mean,
            "scale": float(f"{self.scale:.9g}"),
            "source": self.source,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], folder: Path) -> Preprocessing:
        """The inverse of :meth:`as_dict`, for values that are not trusted.

        Args:
            values: of ``preprocessing.json``.
            folder: where a mean image lies.

        Raises:
            FormatError: values that are missing or out of range; a mean image that does not fit.
        """
        path = folder / FILE
        try:
            return _from_dict(cls, values, folder)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, FormatError):
                raise
            what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise FormatError(what, "deploy writes it; was it changed?", path=path) from error

    def write(self, folder: Path) -> None:
        """Writes ``preprocessing.json``, and the mean image if there is one.

        Raises:
            OutputError: they cannot be written.
        """
        if self.has_mean_image:
            data = mean_blob(self.mean).SerializeToString(deterministic=True)
            write_bytes(folder / MEAN_FILE, data)
        write_text(folder / FILE, json.dumps(self.as_dict(), indent=2) + "\n")


def read_preprocessing(folder: Path) -> Preprocessing | None:
    """The preprocessing of a bundle; None for another folder.

    Raises:
        FormatError: values that are missing or out of range.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    values = read_json_object(path)
    if not values:
        raise FormatError("not a JSON object", "deploy writes it; was it changed?", path=path)
    return Preprocessing.from_dict(values, folder)


def read_mean_image(path: Path) -> NDArray[np.float32]:
    """The mean image in a file of compute_image_mean or make-lmdb: [channels, height, width].

    Raises:
        MissingInputError: no such file.
        FormatError: not a mean image.
    """
    array = np.asarray(read_array(read_binary(path, messages.BlobProto)), np.float32)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3 or not array.size or not np.isfinite(array).all():
        raise FormatError(f"not a mean image: shape {array.shape}", path=path)
    return array


def _from_dict(cls: type[Preprocessing], values: dict[str, Any], folder: Path) -> Preprocessing:
    channels = _whole(values["channels"], 4, "channels")
    height, width = (_whole(values["crop"][side], MAX_SIDE, side) for side in ("height", "width"))
    resize = values["resize"]
    stored, mode, interpolation = None, "none", "linear"
    if resize is not None:
        stored = tuple(_whole(resize[side], MAX_SIDE, side) for side in ("height", "width"))
        mode, interpolation = str(resize["mode"]), str(resize["interpolation"])
    if mode not in RESIZE_MODES or interpolation not in INTERPOLATIONS:
        raise ValueError(f"resize cannot be {mode} and {interpolation}")
    if "mean_file" in values:
        mean = read_mean_image(folder / MEAN_FILE)  # of that name only: paths are not trusted
    else:
        mean = np.array([_number(value, "mean") for value in values["mean"]], np.float32)
    return checked(
        cls(
            channels=channels,
            height=height,
            width=width,
            mean=mean,
            scale=_number(values["scale"], "scale"),
            stored=None if stored is None else (stored[0], stored[1]),
            resize=mode,
            interpolation=interpolation,
            source=str(folder / FILE),
        )
    )


def checked(made: Preprocessing) -> Preprocessing:
    """The same, if its parts fit together.

    Raises:
        FormatError: they do not.
    """
    size = made.resized_to
    problem = ""
    if max(made.height, made.width, *(size or ())) > MAX_SIDE:
        problem = f"images of more than {MAX_SIDE:,} pixels a side"
    elif size is not None and (size[0] < made.height or size[1] < made.width):
        problem = (
            f"images are stored with {size[1]}x{size[0]} pixels, less than the net's input of "
            f"{made.width}x{made.height}"
        )
    elif made.has_mean_image and made.mean.shape != (made.channels, *(size or made.mean.shape[1:])):
        shown = "x".join(map(str, made.mean.shape))
        problem = f"the mean image is {shown}, the images are {made.channels} channels of {size}"
    elif not made.has_mean_image and made.mean.shape != (made.channels,):
        problem = f"{made.mean.size} mean values for {made.channels} channels"
    elif not np.isfinite(made.mean).all():
        problem = "a mean beyond the range of float32"
    elif not _LEAST <= abs(made.scale) <= _MOST:
        problem = f"a scale of {made.scale}"
    if problem:
        raise FormatError(f"{made.source or 'preprocessing'}: {problem}")
    return made


def _whole(value: Any, most: int, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{name} must be a whole number from 1 to {most}")
    return value


def _number(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _MOST:
        raise ValueError(f"{name} must be a number")
    return float(value)
