"""What goes on within the net for training images: dead channels, the trunk, NaN, the gradient."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.diagnose.measured import BlockActivity, LayerActivity
from irv2caffe.errors import InputError
from irv2caffe.inference.crops import UnfitImageError
from irv2caffe.inference.feeding import feed
from irv2caffe.inference.running import start_runner
from irv2caffe.proto import messages
from irv2caffe.shapes.infer import infer
from irv2caffe.shapes.memory import add, memory
from irv2caffe.system import total_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from irv2caffe.diagnose.measure.subject import Subject
    from irv2caffe.evaluate.run import ProgressBar
    from irv2caffe.shapes.infer import NetShapes

    Batch = tuple[NDArray[np.float32], NDArray[np.float32]]

_NUM_IMAGES, _MOST_BATCHES = 128, 16
_MOST_BYTES = 4 << 30
# Columns of irv2caffe.inference.worker.summary.
_BAD, _ZEROS, _LARGEST, _SUM, _SQUARES = range(5)


def activity(subject: Subject, progress: ProgressBar) -> dict[str, Any]:
    """Runs the net as in training, and looks at all of its blobs.

    Few images meet in a batch, as many as memory allows with the gradients.

    Raises:
        InputError: no training image can be used; too little memory.
        CaffeFailedError: the net cannot run, or not backward.
    """
    net = _observed(subject.training_net)
    shapes = infer(net, "TRAIN")
    size = _batch_size(subject, shapes)
    num_batches = min(_MOST_BATCHES, -(-_NUM_IMAGES // size))
    tops = [top for layer in net.layer for top in layer.top]
    totals: dict[str, NDArray[np.float64]] = {}
    num_images, values = 0, {}
    options = subject.request.runner_options
    with (
        progress("what goes on within the net") as bar,
        start_runner(net, subject.model.weights, blobs=tops, phase="TRAIN", **options) as runner,
    ):
        for number, (images, labels) in enumerate(_batches(subject, size, num_batches)):
            found = runner.summarize(images)
            bad = next((one.name for one in net.layer if _is_bad(one.top, found)), "")
            if bad:
                return {"first_bad_layer": bad}
            if not number:
                norms = runner.gradient(labels)
                values["gradient_norm"] = math.hypot(*norms.values())
                values["num_gradient_images"] = len(images)
            num_images += len(images)
            for name, columns in found.items():
                _add(totals, name, columns.astype(np.float64))
            bar(number + 1, num_batches)
    if not num_images:
        raise InputError(f"{subject.train.source}: no training image could be used")
    counts = {name: num_images * math.prod(shape[2:]) for name, shape in shapes.blobs.items()}
    return {
        **values,
        "num_activity_images": num_images,
        "activations": tuple(_activations(net, totals, counts)),
        "blocks": tuple(_blocks(net, totals, counts)),
    }


def _observed(net: Any) -> Any:
    """The net up to the scores, with a blob of its own for each top, and gradients."""
    result = messages.NetParameter()
    result.CopyFrom(net)
    del result.layer[-1]  # the softmax
    result.force_backward = True
    taken = {top for layer in result.layer for top in layer.top}
    produced: set[str] = set()
    now: dict[str, str] = {}
    for layer in result.layer:
        layer.bottom[:] = [now[bottom] for bottom in layer.bottom]
        for place, top in enumerate(layer.top):
            name = top
            while name in produced or (name != top and name in taken):
                name = f"{name}_"
            produced.add(name)
            now[top] = layer.top[place] = name
    return result


def _batch_size(subject: Subject, shapes: NetShapes) -> int:
    """Images of a batch: that of the training, if the memory is enough; at least 2."""
    of_image = add(memory(shapes, backward=True)).of_batch
    affordable = min(_MOST_BYTES, total_memory_bytes() // 4) // max(1, of_image)
    if 2 * of_image > total_memory_bytes() // 2:
        raise InputError("two images with their gradients need more than half of the memory")
    return max(2, min(subject.train_batch_size, int(affordable)))


def _batches(subject: Subject, size: int, num_batches: int) -> Iterator[Batch]:
    """Whole batches of training images with their labels, the centre of each."""
    made, num_classes = subject.training_preprocessing, subject.model.num_classes
    inputs: list[NDArray[np.float32]] = []
    labels: list[int] = []
    num_done = 0
    for image in subject.images(subject.train, seed=subject.request.seed):
        if image.label is None or not 0 <= image.label < num_classes:
            continue
        try:
            inputs.append(feed(made, image.pixels)[0])
        except UnfitImageError:
            continue
        labels.append(image.label)
        if len(inputs) == size:
            yield np.stack(inputs), np.array(labels, np.float32)
            inputs, labels, num_done = [], [], num_done + 1
            if num_done == num_batches:
                return
    if not num_done and len(inputs) > 1:
        yield np.stack(inputs), np.array(labels, np.float32)


def _is_bad(tops: Any, found: Any) -> bool:
    return any(found[top][:, _BAD].any() for top in tops)


def _add(totals: dict[str, NDArray[np.float64]], name: str, columns: NDArray[np.float64]) -> None:
    before = totals.get(name)
    if before is None:
        totals[name] = columns
        return
    largest = np.maximum(before[:, _LARGEST], columns[:, _LARGEST])
    before += columns
    before[:, _LARGEST] = largest


def _activations(net: Any, totals: Any, counts: dict[str, int]) -> Iterator[LayerActivity]:
    """The ReLU layers."""
    for layer in net.layer:
        if layer.type == "ReLU" and not layer.relu_param.negative_slope:
            columns = totals[layer.top[0]]
            yield LayerActivity(
                layer.name,
                len(columns),
                int((columns[:, _LARGEST] == 0).sum()),
                float(columns[:, _ZEROS].sum() / (len(columns) * counts[layer.top[0]])),
            )


def _blocks(net: Any, totals: Any, counts: dict[str, int]) -> Iterator[BlockActivity]:
    """The sums of two blobs; the trunk is the one with fewer layers before it."""
    depths: dict[str, int] = {}
    for layer in net.layer:
        depth = 1 + max((depths[bottom] for bottom in layer.bottom), default=0)
        depths.update((top, depth) for top in layer.top)
        param = layer.eltwise_param
        if layer.type != "Eltwise" or param.operation != param.SUM or len(layer.bottom) != 2:
            continue
        factors = list(param.coeff) or [1.0, 1.0]
        stds = [
            abs(factor) * _std(totals[bottom], counts[bottom])
            for factor, bottom in zip(factors, layer.bottom, strict=True)
        ]
        trunk = int(depths[layer.bottom[1]] < depths[layer.bottom[0]])
        yield BlockActivity(layer.name, stds[trunk], stds[1 - trunk])


def _std(columns: NDArray[np.float64], count: int) -> float:
    """The standard deviation of all values."""
    number = len(columns) * count
    mean = columns[:, _SUM].sum() / number
    return math.sqrt(max(0.0, columns[:, _SQUARES].sum() / number - mean * mean))
