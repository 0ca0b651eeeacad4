"""Finds the preprocessing that a net was trained with: in its files, or as the user says."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.data.inspect.database import read_database
from irv2caffe.data.options import INTERPOLATIONS, RESIZE_MODES
from irv2caffe.data.records.database_files import read_manifest
from irv2caffe.errors import FormatError, InputError, Irv2CaffeError, UsageError
from irv2caffe.inference.preprocessing import MAX_SIDE, Preprocessing, checked, read_mean_image
from irv2caffe.shapes.phases import select

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Size = tuple[int, int]

_READERS = ("Data", "ImageData", "WindowData", "MemoryData", "HDF5Data")
_HEADER = re.compile(
    r"# input: (BGR|gray), 0 to 255, minus (.+), times ([-+.\de]+); output: ", re.ASCII
)
_HEADER_LINES = 20


@dataclass(frozen=True)
class PreprocessingOptions:
    """What the user says of the preprocessing; None takes what was found.

    Attributes:
        mean_value: one number, or one per channel.
        mean_file: a mean image.
        scale: factor after the mean was subtracted.
        resize: (width, height) that images are resized to before the crop.
        resize_mode: as make-lmdb calls it.
        interpolation: as make-lmdb calls it.
    """

    mean_value: tuple[float, ...] | None = None
    mean_file: Path | None = None
    scale: float | None = None
    resize: Size | None = None
    resize_mode: str | None = None
    interpolation: str | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) is not None for field in fields(self))


@dataclass(frozen=True)
class Found:
    """Parts of a preprocessing.

    Attributes:
        mean: per channel, or a mean image.
        scale: factor after the mean was subtracted.
        stored: (height, width) of images before the crop; None if unknown.
        resize: mode of resizing.
        interpolation: of it.
        channels: of the images; 0 if unknown.
        source: where they were found.
        notes: one line for each thing that is not known or not done.
    """

    mean: NDArray[np.float32]
    scale: float
    stored: Size | None = None
    resize: str = "squash"
    interpolation: str = "linear"
    channels: int = 0
    source: str = ""
    notes: tuple[str, ...] = ()


def data_layer(net: Any) -> Any | None:
    """The layer that reads the images in phase TEST, else in TRAIN; None without one."""
    for phase in ("TEST", "TRAIN"):
        for layer in select(net, phase).layer:
            if layer.type in _READERS and not layer.bottom:
                return layer
    return None


def source_of(layer: Any) -> Path | None:
    """The database or list that a data layer reads."""
    param = {"Data": layer.data_param, "ImageData": layer.image_data_param}.get(layer.type)
    return Path(param.source) if param is not None and param.source else None


def from_data_layer(layer: Any, where: Path, stored: Any = None) -> Found:
    """The preprocessing of a data layer, with the stored size from its database.

    Args:
        layer: a LayerParameter.
        where: the file that it stands in; relative paths start from the working folder or from
            this file's folder.
        stored: how images were stored in the training, by the run's ``config.json``.

    Raises:
        MissingInputError, FormatError: the mean image is missing or no mean image.
    """
    transform = layer.transform_param
    found = Found(np.zeros(0, np.float32), float(transform.scale), source=str(where))
    if transform.mirror:
        found = _noted(found, "the net's data layer mirrors at random in tests; here it does not")
    if layer.type == "ImageData":
        found = _of_image_data(found, layer.image_data_param)
    elif layer.type == "Data":
        found = _of_database(found, layer.data_param.source, where, stored)
    mean = np.array(transform.mean_value, np.float32)
    if transform.mean_file:
        mean = read_mean_image(placed(transform.mean_file, where))
        # Caffe accepts it only if the records have its size.
        found = replace(found, stored=mean.shape[1:], channels=mean.shape[0])
    return replace(found, mean=mean)


def _of_image_data(found: Found, param: Any) -> Found:
    size = (int(param.new_height), int(param.new_width))
    channels = 3 if param.is_color else 1
    if not all(0 < side <= MAX_SIDE for side in size):
        return replace(found, resize="none", channels=channels)
    return replace(found, stored=size, channels=channels)


def _of_database(found: Found, name: str, where: Path, stored: Any) -> Found:
    """The stored size, as the run recorded it; else from the database, manifest or first record."""
    if isinstance(stored, dict) and (known := _from_manifest(found, stored)):
        return known  # the database may have been made again since, in another size
    folder = placed(name, where)
    options = read_manifest(folder).get("options")
    if isinstance(options, dict) and (known := _from_manifest(found, options)):
        return known
    try:
        database = read_database(folder)
    except Irv2CaffeError:
        return _noted(
            found,
            f"{folder} is gone: images are resized to the net's input, not to the size that they "
            "were stored with in training; --resize says it",
        )
    channels, height, width = database.shape
    if database.mixed_sizes:
        return replace(found, resize="none", channels=channels)
    return replace(found, stored=(height, width), channels=channels)


def _from_manifest(found: Found, options: dict[str, Any]) -> Found | None:
    """The values of a manifest, which is not trusted; None if they make no sense."""
    size, mode = options.get("size"), options.get("resize_mode")
    interpolation, gray = options.get("interpolation"), options.get("gray")
    if mode not in RESIZE_MODES or interpolation not in INTERPOLATIONS:
        return None
    channels = 1 if gray is True else 3
    if size is None or mode == "none":
        return replace(found, resize="none", channels=channels)
    if not isinstance(size, list) or len(size) != 2 or not all(map(_is_side, size)):
        return None
    width, height = size
    return replace(
        found, stored=(height, width), resize=mode, interpolation=interpolation, channels=channels
    )


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and 1 <= value <= MAX_SIDE


def from_header(text: str, where: Path) -> Found | None:
    """The preprocessing in the header of a deploy net of build-net; None without one.

    Raises:
        MissingInputError, FormatError: its mean image is missing or no mean image.
    """
    for line in text.splitlines()[:_HEADER_LINES]:
        match = _HEADER.match(line)
        if match:
            return _of_header(match, where)
    return None


def _of_header(match: re.Match[str], where: Path) -> Found:
    channels = 3 if match[1] == "BGR" else 1
    words = match[2].split()
    try:
        scale = float(match[3])
        mean = np.array([float(word) for word in words], np.float32)
    except ValueError:
        mean = read_mean_image(placed(match[2], where))
        stored: Size = mean.shape[1:]
        return Found(mean, scale, stored, channels=channels, source=f"the header of {where}")
    found = Found(mean, scale, channels=channels, source=f"the header of {where}")
    return _noted(
        found,
        f"{where} does not say to which size images were resized in training: they are resized "
        "to the net's input; --resize says it",
    )


def completed(
    found: Found | None, options: PreprocessingOptions, shape: tuple[int, int, int], hint: str
) -> Preprocessing:
    """The preprocessing for a net, from what was found and what the user says.

    Args:
        found: in files; None if nothing was.
        options: what the user says.
        shape: channels, height and width of the net's input.
        hint: for the error.

    Raises:
        InputError: nothing was found, and the user says neither mean nor scale.
        UsageError: options that do not fit the net.
        FormatError: found values that do not.
    """
    channels, height, width = shape
    says_values = options.mean_value or options.mean_file or options.scale is not None
    if found is None:
        if not says_values:
            raise InputError("what the net must be fed with is not known", hint)
        found = Found(np.zeros(0, np.float32), 1.0, source="the options")
    mean = _mean(found, options, channels)
    stored = found.stored
    if options.resize is not None:
        stored = (options.resize[1], options.resize[0])
    elif mean.ndim == 3 and (stored is None or options.mean_file):
        stored = (mean.shape[1], mean.shape[2])
    mode = options.resize_mode or ("squash" if options.resize and found.resize == "none" else None)
    made = Preprocessing(
        channels=channels,
        height=height,
        width=width,
        mean=mean,
        scale=found.scale if options.scale is None else options.scale,
        stored=stored,
        resize=mode or found.resize,
        interpolation=options.interpolation or found.interpolation,
        source=found.source if not options else f"{found.source}, and the options",
    )
    return checked(made)


def _mean(found: Found, options: PreprocessingOptions, channels: int) -> NDArray[np.float32]:
    if options.mean_file is not None:
        if options.mean_value is not None:
            raise UsageError("--mean-value and --mean-file exclude each other")
        return read_mean_image(options.mean_file)
    mean = found.mean
    if options.mean_value is not None:
        if not all(map(math.isfinite, options.mean_value)):
            raise UsageError("--mean-value: not a number")
        mean = np.array(options.mean_value, np.float32)
    if mean.ndim == 1 and mean.size in {0, 1}:
        mean = np.full(channels, mean[0] if mean.size else 0, np.float32)
    if mean.ndim == 1 and mean.size != channels:
        what = f"{mean.size} mean values for a net of {channels} channel(s)"
        if options.mean_value is not None:
            raise UsageError(f"--mean-value: {what}")
        raise FormatError(f"{found.source}: {what}")
    return mean


def _noted(found: Found, note: str) -> Found:
    return replace(found, notes=(*found.notes, note))


def placed(name: str, where: Path) -> Path:
    """A path as Caffe takes it, or else beside the file that names it."""
    path = Path(name)
    if path.exists():
        return path
    beside = where.parent / (path.name if path.is_absolute() else path)  # of a moved run
    return beside if beside.exists() else path
