"""The views of an image that a net is shown, of which the probabilities are averaged.

==== =====================================================================================
1    the centre, as Caffe's data layer in phase TEST
10   the four corners and the centre of the stored image, and these mirrored (Krizhevsky et
     al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 4.1)
12   the same, and the whole stored image resized to the input with its mirror image. The papers
     on Inception v3 and v4 report 12 crops without saying which; these are the six views of a
     square and their mirror images of which the 144 consist
144  the image with its shorter side at 256, 288, 320 and 352 pixels for an input of 224, and in
     proportion for others; of each the left, middle and right (or upper, middle and lower)
     square; of each square the 12 views (Szegedy et al. 2014, "Going Deeper with
     Convolutions", section 7)
==== =====================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from irv2caffe.inference.preprocessing import Preprocessing

    View = tuple[NDArray[Any], NDArray[np.float32]]

_SHORT_SIDES = (256, 288, 320, 352)
_INPUT = 224  # of the net that these sides are for


class UnfitImageError(ValueError):
    """An image that cannot be fed: too small, too narrow, or another number of channels."""


def views(made: Preprocessing, pixels: NDArray[Any], crops: int) -> Iterator[View]:
    """1, 10 or 12 views of an image of the stored size, each with its mean.

    Args:
        made: what to do.
        pixels: height x width x channels, or height x width.
        crops: the number of views.

    Yields:
        The view [channels, height, width], and the mean to subtract.

    Raises:
        UnfitImageError: smaller than the input, or another number of channels.
        UsageError: the image has the size of the input, so that all crops are the same.
    """
    planes = _planes(pixels)
    mean = _mean_for(made, planes.shape)
    if crops == 1:
        yield _cut(made, planes, mean, "centre")
        return
    if made.resized_to == (made.height, made.width):
        raise UsageError(
            f"--crops {crops}: images are resized to the {made.width}x{made.height} of the net's "
            "input, so that all crops are the same",
            "give a larger size with --resize, such as 8/7 of the input",
        )
    yield from _square_views(made, planes, mean, with_whole=crops == 12)


def whole_image_views(made: Preprocessing, pixels: NDArray[Any], crops: int) -> Iterator[View]:
    """The 144 views of an image of any size, each with its mean."""
    assert crops == len(_SHORT_SIDES) * 3 * 12
    crop = min(made.height, made.width)
    for wanted in _SHORT_SIDES:
        side = max(made.height, made.width, round(wanted * crop / _INPUT))
        scaled = _planes(_resized(pixels, (side, side), "short-side", made.interpolation))
        height, width = scaled.shape[1:]
        mean = _resized_mean(made, side)
        for part in range(3):
            top, left = (height - side) * part // 2, (width - side) * part // 2
            square = scaled[:, top : top + side, left : left + side]
            yield from _square_views(made, square, mean, with_whole=True)


def _square_views(
    made: Preprocessing, planes: NDArray[Any], mean: NDArray[np.float32], *, with_whole: bool
) -> Iterator[View]:
    """Corners, centre and perhaps the whole, each followed by its mirror image."""
    found = [
        _cut(made, planes, mean, place)
        for place in ("upper left", "upper right", "lower left", "lower right", "centre")
    ]
    if with_whole:
        size = (made.height, made.width)
        whole = _planes(_resized(_image(planes), size, "squash", made.interpolation))
        found.append((whole, _fitted(mean, size)))
    for view, own_mean in found:
        yield view, own_mean
        yield view[:, :, ::-1], own_mean


def _cut(made: Preprocessing, planes: NDArray[Any], mean: NDArray[np.float32], place: str) -> View:
    room = (planes.shape[1] - made.height, planes.shape[2] - made.width)
    if min(room) < 0:
        raise UnfitImageError(
            f"{planes.shape[2]}x{planes.shape[1]} pixels, smaller than the net's input of "
            f"{made.width}x{made.height}"
        )
    top, left = room[0] // 2, room[1] // 2
    if place != "centre":
        top = room[0] if "lower" in place else 0
        left = room[1] if "right" in place else 0
    inside = (slice(None), slice(top, top + made.height), slice(left, left + made.width))
    return planes[inside], mean if mean.shape[1:] == (1, 1) else mean[inside]


def _planes(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _image(planes: NDArray[Any]) -> NDArray[Any]:
    image = planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)
    return np.ascontiguousarray(image)


def _mean_for(made: Preprocessing, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The mean [channels, 1, 1], or the mean image, for an image of a shape."""
    if shape[0] != made.channels:
        raise UnfitImageError(f"{shape[0]} channels, the net takes {made.channels}")
    if not made.has_mean_image:
        return made.mean.reshape(-1, 1, 1)
    if made.mean.shape != shape:
        size, own = ("x".join(map(str, each)) for each in (shape, made.mean.shape))
        raise UnfitImageError(f"{size}, the mean image is {own}")
    return made.mean


def _resized_mean(made: Preprocessing, side: int) -> NDArray[np.float32]:
    if not made.has_mean_image:
        return made.mean.reshape(-1, 1, 1)
    return _fitted(made.mean, (side, side))


def _fitted(mean: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A mean image resized to (height, width); others stay."""
    if mean.shape[1:] in {(1, 1), size}:
        return mean
    resized: NDArray[np.float32] = _planes(_resized(_image(mean), size, "squash", "linear"))
    return resized


def _resized(
    pixels: NDArray[Any], size: tuple[int, int], mode: str, interpolation: str
) -> NDArray[Any]:
    from irv2caffe.data.records.image import UndecodableImageError, resize

    try:
        return resize(pixels, (size[1], size[0]), mode, interpolation)
    except UndecodableImageError as error:
        raise UnfitImageError(f"{error.reason}: {error.detail}") from error
