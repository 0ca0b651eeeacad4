"""Memory of a batch: filled by several threads, finished on the device, used again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from irv2caffe.data.records.augment import recolored
from irv2caffe.data.records.image import write_planes
from irv2caffe.errors import FormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from irv2caffe.engine.data.pictures import Picture
    from irv2caffe.engine.data.transform import Transform, View


ON_HOST = ("cpu",)
"""Types of devices for which the processor computes the batch."""


class Batch(Protocol):
    """A batch that several threads fill."""

    def release(self) -> None:
        """Notes that the net has got all its work on the batch, which may not be done yet."""

    def is_done(self) -> bool:
        """Whether the device has done this work."""

    def reuse(self) -> None:
        """Waits until it has, and the memory may be filled again."""

    def write(self, place: int, view: View, label: int) -> None:
        """Stores a picture; called from several threads, for different places."""

    def finish(self) -> tuple[Tensor, Tensor]:
        """Data and labels on the device; valid until the batch is filled again."""

    def wait(self) -> None:
        """Makes the work that follows on the device wait until the batch is there."""


def make_batch(size: int, transform: Transform, first: Picture, device: torch.device) -> Batch:
    """Memory for a batch.

    Args:
        size: number of pictures.
        transform: of the pictures.
        first: the first picture, which tells the type and layout of all.
        device: where the net runs.
    """
    if device.type in ON_HOST:
        return HostBatch(size, transform)
    return DeviceBatch(size, transform, first, device)


class HostBatch:
    """A batch in the memory of the processor: each picture is computed as it is stored."""

    def __init__(self, size: int, transform: Transform) -> None:
        # numpy asks for huge pages, which makes filling large batches twice as fast.
        self._data = np.empty((size, *transform.shape), np.float32)
        self._labels = np.zeros(size, np.float32)
        self._transform = transform

    def release(self) -> None:
        """The processor has done its work when it asks for the next batch."""

    def is_done(self) -> bool:
        """It has."""
        return True

    def reuse(self) -> None:
        """It may be filled."""

    def write(self, place: int, view: View, label: int) -> None:
        """Computes (x - mean) * scale in float32, in Caffe's order."""
        mean, scale = self._transform.mean, self._transform.scale
        pixels = view.pixels
        if view.distort is not None:
            pixels = recolored(pixels.transpose(1, 2, 0), view.distort).transpose(2, 0, 1)
        if self._transform.has_mean_image and mean is not None:
            _, height, width = pixels.shape
            mean = mean[:, view.top : view.top + height, view.left : view.left + width]
        side = slice(None, None, -1) if view.mirrored else slice(None)
        for channel, plane in enumerate(_planes(pixels)):  # each stays in the cache
            out = self._data[place, channel]
            np.copyto(out, plane[:, side])
            if mean is not None:
                np.subtract(out, mean[channel, :, side], out=out)
            if scale != 1:
                np.multiply(out, scale, out=out)
        self._labels[place] = label

    def finish(self) -> tuple[Tensor, Tensor]:
        """All is done."""
        return torch.from_numpy(self._data), torch.from_numpy(self._labels)

    def wait(self) -> None:
        """All is there."""


class DeviceBatch:
    """A batch that is copied to the device as bytes and computed there, on a stream of its own."""

    def __init__(
        self, size: int, transform: Transform, first: Picture, device: torch.device
    ) -> None:
        self._device = device
        self._transform = transform
        is_cuda = device.type == "cuda"
        channels, height, width = transform.shape
        interleaved = first.is_interleaved or transform.recolors
        shape = (size, height, width, channels) if interleaved else (size, *transform.shape)
        kind = torch.float32 if first.pixels.dtype == np.float32 else torch.uint8
        memory = torch.empty(shape, dtype=kind, pin_memory=is_cuda)
        self._pixels = memory.permute(0, 3, 1, 2) if interleaved else memory
        self._labels = torch.zeros(size, pin_memory=is_cuda)
        self._choices = torch.zeros(size, 6, pin_memory=is_cuda)
        self._out: NDArray[Any] = self._pixels.numpy()
        self._out_labels: NDArray[np.float32] = self._labels.numpy()
        self._out_choices: NDArray[np.float32] = self._choices.numpy()
        mean = transform.mean
        self._mean = None if mean is None else torch.from_numpy(mean).to(device)
        self._stream = torch.cuda.Stream(device) if is_cuda else None
        self._ready: torch.cuda.Event | None = None
        self._done = torch.cuda.Event(blocking=True) if is_cuda else None
        self._tops: tuple[Tensor, ...] = ()

    def release(self) -> None:
        """Notes the place in the work of the current stream."""
        if self._done is not None:
            self._done.record(torch.cuda.current_stream(self._device))

    def is_done(self) -> bool:
        """Whether the device has come to this place."""
        return self._done is None or bool(self._done.query())

    def reuse(self) -> None:
        """Waits for it, so that a quick program is not more than two batches ahead of the device.

        Otherwise it would fill the memory of the device with batches.
        """
        if self._done is not None:
            self._done.synchronize()

    def write(self, place: int, view: View, label: int) -> None:
        """Stores the bytes; the rest is computed on the device."""
        if view.pixels.dtype != self._out.dtype:
            raise FormatError(f"it holds {view.pixels.dtype}, the first record {self._out.dtype}")
        np.copyto(self._out[place], view.pixels)
        self._out_labels[place] = label
        colors = (0.0, 1.0, 1.0)
        if (distort := view.distort) is not None:
            colors = (distort.brightness or 0.0, distort.saturation, distort.brightness_first)
        self._out_choices[place] = (view.mirrored, view.top, view.left, *colors)

    def finish(self) -> tuple[Tensor, Tensor]:
        """Copies the batch to the device and computes it there, without waiting for it."""
        if self._stream is None:
            return self._compute()
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            tops = self._compute()
            self._ready = torch.cuda.Event()
            self._ready.record(self._stream)
        self._tops = tops
        return tops

    def wait(self) -> None:
        """Makes the current stream wait for the batch."""
        if self._ready is None:
            return
        current = torch.cuda.current_stream(self._device)
        current.wait_event(self._ready)
        for top in self._tops:
            top.record_stream(current)
        self._tops = ()

    def _compute(self) -> tuple[Tensor, Tensor]:
        """(x - mean) * scale in float32, then the mirror image of some."""
        x = self._pixels.to(self._device, non_blocking=True)
        labels = self._labels.to(self._device, non_blocking=True, copy=True)
        choices = self._choices.to(self._device, non_blocking=True)
        if self._transform.recolors:
            x = recolored_batch(x.float(), *choices[:, 3:].t())
        x = x.float() if x.dtype != torch.float32 else x.clone()
        if self._mean is not None:
            x -= self._mean_crops(choices) if self._transform.has_mean_image else self._mean
        if self._transform.scale != 1:
            x *= float(self._transform.scale)
        if self._transform.mirrors:
            x = torch.where(choices[:, 0].bool().view(-1, 1, 1, 1), x.flip(3), x)
        return x, labels

    def _mean_crops(self, choices: Tensor) -> Tensor:
        """The part of the mean image under each crop: batch x channels x height x width."""
        assert self._mean is not None
        _, height, width = self._transform.shape
        windows = self._mean.unfold(1, height, 1).unfold(2, width, 1)
        tops, lefts = choices[:, 1].long(), choices[:, 2].long()
        return windows[:, tops, lefts].transpose(0, 1)


def recolored_batch(x: Tensor, brightness: Tensor, saturation: Tensor, first: Tensor) -> Tensor:
    """Changes brightness and saturation as :func:`irv2caffe.data.records.augment.recolored`.

    Args:
        x: float32 pixels from 0 to 255, batch x channels x height x width.
        brightness: added to each picture.
        saturation: factor for each picture.
        first: 1 where brightness comes before saturation.
    """
    brightness, saturation = brightness.view(-1, 1, 1, 1), saturation.view(-1, 1, 1, 1)
    is_first = first.bool().view(-1, 1, 1, 1)
    x = torch.where(is_first, (x + brightness).clamp(min=0), x)
    if x.shape[1] == 3:
        largest = x.amax(1, keepdim=True)
        spread = largest - x.amin(1, keepdim=True)
        share = torch.minimum(saturation, largest / spread).where(spread > 0, 1.0)
        x = largest - (largest - x) * share
    x = torch.where(is_first, x, x + brightness)
    return x.clamp(0, 255).round()


def _planes(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels with one plane after another in memory, as far as that is quick."""
    if pixels.shape[0] == 1 or pixels.strides[0] != pixels.itemsize:
        return pixels
    planes = np.empty(pixels.shape, pixels.dtype)
    write_planes(pixels.transpose(1, 2, 0), planes.reshape(-1))
    return planes
