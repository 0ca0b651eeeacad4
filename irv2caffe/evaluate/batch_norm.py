"""BatchNorm in a trained net: which statistics it uses, and new ones from training batches."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.errors import InputError
from irv2caffe.inference.crops import UnfitImageError
from irv2caffe.inference.feeding import feed
from irv2caffe.inference.running import start_runner
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array, read_array
from irv2caffe.proto.caffemodel import ModelFile, write_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from irv2caffe.inference.images import Images
    from irv2caffe.inference.model import Model
    from irv2caffe.inference.preprocessing import Preprocessing

    Progress = Callable[[int, int], None]


def uses_batch_statistics(net: Any) -> bool:
    """Whether a BatchNorm normalizes each TEST batch by itself (``use_global_stats: false``)."""
    return any(
        layer.type == "BatchNorm"
        and layer.batch_norm_param.HasField("use_global_stats")
        and not layer.batch_norm_param.use_global_stats
        for layer in net.layer
    )


def with_global_statistics(net: Any) -> Any:
    """The net with BatchNorm that uses the stored statistics."""
    return with_batch_norm(net, use_global_stats=True)


def check_batch_norm(model: Model) -> set[str]:
    """The names of the BatchNorm layers.

    Raises:
        InputError: there are none.
    """
    names = {layer.name for layer in model.net.layer if layer.type == "BatchNorm"}
    if not names:
        raise InputError(f"{model.weights}: its net has no BatchNorm", "leave out --reestimate-bn")
    return names


def reestimate(
    model: Model,
    batches: Iterable[NDArray[np.float32]],
    out: Path,
    *,
    runner_options: dict[str, Any],
) -> str:
    """Writes a model whose BatchNorm statistics are the plain means over training batches.

    The net runs in phase TRAIN with moving_average_fraction 1: stock Caffe then adds the mean and
    the variance of each batch to what is stored and counts the batches in the third blob, by which
    TEST divides (batch_norm_layer.cpp). The sums begin at zero.

    Args:
        model: whose other weights are kept.
        batches: inputs of the net, [images, channels, height, width].
        out: the new ``.caffemodel``.
        runner_options: of :func:`irv2caffe.inference.running.start_runner`.

    Returns:
        What ran the net.

    Raises:
        InputError: the net has no BatchNorm.
        CaffeFailedError: the net cannot run.
    """
    names = check_batch_norm(model)
    net = with_batch_norm(model.net, use_global_stats=False, moving_average_fraction=1.0)
    with tempfile.TemporaryDirectory(prefix="irv2caffe-") as folder:
        start = Path(folder) / "start.caffemodel"
        write_model(start, net, _with_empty_statistics(model.weights, names))
        wanted = [model.probabilities]
        with start_runner(net, start, blobs=wanted, phase="TRAIN", **runner_options) as runner:
            for batch in batches:
                runner.forward(batch)
            runner.save(out)
            return runner.title


def with_batch_norm(net: Any, **values: Any) -> Any:
    """The net with other values of ``batch_norm_param`` in each BatchNorm."""
    changed = messages.NetParameter()
    changed.CopyFrom(net)
    for layer in changed.layer:
        if layer.type == "BatchNorm":
            for name, value in values.items():
                setattr(layer.batch_norm_param, name, value)
    return changed


def _with_empty_statistics(weights: Path, names: set[str]) -> Iterator[Any]:
    """The layers of a model, with the sums of some at zero."""
    model = ModelFile(weights)
    for name in model.layers:
        layer = messages.LayerParameter(name=name, blobs=model.blobs(name))
        if name in names:
            empty = [blob_from_array(np.zeros_like(read_array(blob))) for blob in layer.blobs]
            del layer.blobs[:]
            layer.blobs.extend(empty)
        yield layer


def training_input(
    made: Preprocessing, pixels: NDArray[Any], *, mirror: bool, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The input of a net in training: a random crop, perhaps mirrored (data_transformer.cpp).

    Args:
        made: the net's preprocessing.
        pixels: an image of the stored size.
        mirror: whether half of the images are mirrored.
        rng: for the places.

    Returns:
        [channels, height, width].

    Raises:
        UnfitImageError: smaller than the input, or another number of channels.
    """
    sides = (made.height, made.width)
    rooms = [have - want for have, want in zip(pixels.shape[:2], sides, strict=True)]
    top, left = (int(rng.integers(0, room + 1)) if room > 0 else 0 for room in rooms)
    inside = (slice(top, top + made.height), slice(left, left + made.width))
    mean = made.mean[(slice(None), *inside)] if made.has_mean_image else made.mean
    values: NDArray[np.float32] = feed(replace(made, mean=mean, stored=None), pixels[inside])[0]
    return values[:, :, ::-1] if mirror and rng.integers(2) else values


def training_batches(
    made: Preprocessing,
    training: Images,
    *,
    num_batches: int,
    batch_size: int,
    mirror: bool,
    seed: int,
    progress: Progress,
) -> Iterator[NDArray[np.float32]]:
    """Batches of random training images, augmented as Caffe's data layer does.

    Args:
        made: the net's preprocessing.
        training: the images.
        num_batches: number of batches; the images begin again in another order where they end.
        batch_size: images in a batch.
        mirror: whether half of the images are mirrored.
        seed: of the order, the crops and the mirroring.
        progress: called with (batches, all batches).

    Raises:
        InputError: no image can be used.
    """
    rng = np.random.default_rng(seed)
    names = training.names()
    batch: list[NDArray[np.float32]] = []
    num_done = 0
    while num_done < num_batches:
        num_used = 0
        for image in training.only([names[at] for at in rng.permutation(len(names)).tolist()]):
            try:
                batch.append(training_input(made, image.pixels, mirror=mirror, rng=rng))
            except UnfitImageError:
                continue
            num_used += 1
            if len(batch) == batch_size:
                yield np.stack(batch)
                batch.clear()
                num_done += 1
                progress(num_done, num_batches)
                if num_done == num_batches:
                    return
        if not num_used:
            raise InputError(f"{training.source}: no training image could be used")
