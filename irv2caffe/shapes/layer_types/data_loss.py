"""Shape rules of data layers, losses and Accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.shapes.layer_types.base import LayerSetup, LayerShapes, Shape, count, rule

if TYPE_CHECKING:
    from collections.abc import Sequence

_OUTSIDE = "its shape is not in the prototxt: give it with --input-shape"


def _batch(layer: LayerSetup) -> int:
    batch = layer.batch_size or layer.param.batch_size
    layer.check(batch > 0, "batch_size must be positive")
    return int(batch)


def _image(layer: LayerSetup, size: tuple[int, int] | None) -> Shape:
    """Channels, height and width of an image after ``transform_param``."""
    crop = layer.proto.transform_param.crop_size
    if layer.records:
        sizes = len(layer.records[0])
        layer.check(sizes == 3, f"a record has channels, height, width, not {sizes} sizes")
        channels, height, width = layer.records[0]
        if crop > min(height, width):
            layer.fail(f"crop_size {crop} is larger than the {height}x{width} image")
        return (channels, crop or height, crop or width)
    size = (crop, crop) if crop else size
    if size is None:
        layer.fail("without crop_size, its shape depends on the images", _OUTSIDE)
    return (_channels(layer), *size)


def _channels(layer: LayerSetup) -> int:
    """The channels of images without a known record; three, with a note, if unknown."""
    transform = layer.proto.transform_param
    if layer.proto.type == "ImageData":
        return 3 if layer.param.is_color else 1
    if transform.force_gray:
        return 1
    if not transform.force_color and len(transform.mean_value) != 3:
        layer.notes.append(f"layer {layer.proto.name!r}: images taken as having 3 channels")
    return 3


def _images_and_labels(layer: LayerSetup, size: tuple[int, int] | None = None) -> LayerShapes:
    batch = _batch(layer)
    return LayerShapes([(batch, *_image(layer, size)), (batch,)][: layer.num_tops])


@rule("Data", bottoms=0, tops=(1, 2))
def _data(layer: LayerSetup) -> LayerShapes:
    return _images_and_labels(layer)


@rule("ImageData", bottoms=0, tops=2)
def _image_data(layer: LayerSetup) -> LayerShapes:
    size = (layer.param.new_height, layer.param.new_width)
    layer.check(all(size) or not any(size), "takes new_height and new_width together")
    return _images_and_labels(layer, size if all(size) else None)


@rule("WindowData", bottoms=0, tops=2)
def _window_data(layer: LayerSetup) -> LayerShapes:
    layer.check(layer.proto.transform_param.crop_size > 0, "crop_size must be positive")
    return _images_and_labels(layer)


@rule("MemoryData", bottoms=0, tops=2)
def _memory_data(layer: LayerSetup) -> LayerShapes:
    param = layer.param
    batch = _batch(layer)
    return LayerShapes([(batch, param.channels, param.height, param.width), (batch,)])


@rule("HDF5Data", bottoms=0, tops=(1, None))
def _hdf5_data(layer: LayerSetup) -> LayerShapes:
    layer.check(len(layer.records) == layer.num_tops, "its shapes depend on the file", _OUTSIDE)
    batch = _batch(layer)
    return LayerShapes([(batch, *record) for record in layer.records])


@rule("Python", bottoms=(0, None), tops=(0, None))
def _python(layer: LayerSetup) -> LayerShapes:
    layer.check(len(layer.records) == layer.num_tops, "its shapes depend on its code", _OUTSIDE)
    return LayerShapes([tuple(record) for record in layer.records])


@rule("HDF5Output", bottoms=2, tops=0)
def _hdf5_output(layer: LayerSetup) -> LayerShapes:
    layer.check_legacy()
    return LayerShapes([])


@rule("Input", bottoms=0, tops=(1, None))
def _input(layer: LayerSetup) -> LayerShapes:
    shapes = [tuple(shape.dim) for shape in layer.param.shape]
    if layer.records:
        return LayerShapes([tuple(record) for record in layer.records])
    layer.check(bool(shapes), "has no shape", _OUTSIDE)
    return LayerShapes(_per_top(layer, shapes))


@rule("Parameter", bottoms=0)
def _parameter(layer: LayerSetup) -> LayerShapes:
    shape = tuple(layer.param.shape.dim)
    return LayerShapes([shape], [shape])


@rule("DummyData", bottoms=0, tops=(1, None))
def _dummy_data(layer: LayerSetup) -> LayerShapes:
    param = layer.param
    if len(param.data_filler) not in {0, 1, layer.num_tops}:
        layer.fail(f"takes no, one or {layer.num_tops} data_filler, has {len(param.data_filler)}")
    if param.shape:
        shapes = [tuple(shape.dim) for shape in param.shape]
        return LayerShapes(_per_top(layer, shapes))
    legacy = (param.num, param.channels, param.height, param.width)
    for name, values in zip(("num", "channels", "height", "width"), legacy, strict=True):
        if len(values) not in {1, layer.num_tops}:
            layer.fail(f"takes {name} once or {layer.num_tops} times, has it {len(values)} times")
    spread = [list(values) * (layer.num_tops if len(values) == 1 else 1) for values in legacy]
    return LayerShapes(_per_top(layer, list(zip(*spread, strict=True))))


def _per_top(layer: LayerSetup, shapes: Sequence[Shape]) -> list[Shape]:
    """The shape of each top, given once or for each, with the given batch size.

    Inputs whose first size differs from that of the net's first input (such as regions) keep it.
    """
    if len(shapes) not in {1, layer.num_tops}:
        layer.fail(f"takes shape once or {layer.num_tops} times, has it {len(shapes)} times")
    if layer.batch_size:
        shapes = [
            (layer.batch_size, *shape[1:]) if shape[:1] == (layer.batch_in_file,) else shape
            for shape in shapes
        ]
    return list(shapes) * (layer.num_tops if len(shapes) == 1 else 1)


def _check_same_batch(layer: LayerSetup) -> None:
    """Checks the first sizes, as LossLayer::Reshape does."""
    first = [shape[:1] for shape in layer.bottoms[:2]]
    if not (first[0] == first[1] and bool(first[0])):
        layer.fail(f"{layer.bottom(0)} and {layer.bottom(1)} must have the same first size")


def _check_num_labels(layer: LayerSetup, axis: int) -> None:
    shape = layer.bottoms[0]
    predictions = count(shape, 0, axis) * count(shape, axis + 1)
    if predictions != count(layer.bottoms[1]):
        layer.fail(
            f"{predictions:,} predictions of {layer.bottom(0)} need as many labels, "
            f"{layer.bottom(1)} has {count(layer.bottoms[1]):,}"
        )


@rule("SoftmaxWithLoss", bottoms=2, tops=(1, 2), loss=True)
def _softmax_with_loss(layer: LayerSetup) -> LayerShapes:
    """softmax_loss_layer.cpp passes both loss weights of two tops to a Softmax with one top."""
    if layer.num_tops != 1:
        layer.fail(
            "Caffe 1.0 cannot set up its second top: it passes both loss weights to a layer "
            "with one top",
            "take the probabilities from a Softmax layer",
        )
    _check_same_batch(layer)
    _check_num_labels(layer, layer.axis(layer.proto.softmax_param.axis))
    return LayerShapes([()])


@rule("InfogainLoss", bottoms=(2, 3), tops=(1, 2), loss=True)
def _infogain_loss(layer: LayerSetup) -> LayerShapes:
    _check_same_batch(layer)
    axis = layer.axis(layer.param.axis)
    _check_num_labels(layer, axis)
    classes = layer.bottoms[0][axis]
    if len(layer.bottoms) == 3:
        if count(layer.bottoms[2]) != classes**2:
            layer.fail(f"{layer.bottom(2)} must hold {classes} x {classes} values")
    else:
        layer.check(layer.param.HasField("source"), "the infogain matrix needs a source")
    return LayerShapes([(), layer.bottoms[0]][: layer.num_tops])


@rule("EuclideanLoss", bottoms=2, loss=True)
def _euclidean_loss(layer: LayerSetup) -> LayerShapes:
    _check_same_batch(layer)
    if count(layer.bottoms[0], 1) != count(layer.bottoms[1], 1):
        layer.fail(f"{layer.bottom(0)} and {layer.bottom(1)} must have as many values per item")
    layer.check_legacy(0)
    return LayerShapes([()])


@rule("SigmoidCrossEntropyLoss", bottoms=2, loss=True)
def _sigmoid_cross_entropy_loss(layer: LayerSetup) -> LayerShapes:
    _check_same_batch(layer)
    if count(layer.bottoms[0]) != count(layer.bottoms[1]):
        layer.fail(f"{layer.bottom(0)} and {layer.bottom(1)} must have as many values")
    return LayerShapes([()])


@rule("HingeLoss", bottoms=2, loss=True)
def _hinge_loss(layer: LayerSetup) -> LayerShapes:
    _check_same_batch(layer)
    layer.check_legacy(0)
    return LayerShapes([()])


@rule("MultinomialLogisticLoss", bottoms=2, loss=True)
def _multinomial_logistic_loss(layer: LayerSetup) -> LayerShapes:
    _check_same_batch(layer)
    layer.check(count(layer.bottoms[1], 1) == 1, f"{layer.bottom(1)} must hold one label per item")
    layer.check_legacy()
    return LayerShapes([()])


@rule("ContrastiveLoss", bottoms=3, loss=True)
def _contrastive_loss(layer: LayerSetup) -> LayerShapes:
    _check_same_batch(layer)
    layer.check_legacy()
    channels = [(*shape, 1)[1] for shape in layer.bottoms]
    if channels[0] != channels[1]:
        layer.fail(f"{layer.bottom(0)} and {layer.bottom(1)} must have as many channels")
    for index, shape in enumerate(layer.bottoms):
        size = count(shape, 2 if index < 2 else 1)
        layer.check(size == 1, f"{layer.bottom(index)} must hold one value per item and channel")
    return LayerShapes([()])


@rule("Accuracy", bottoms=2, tops=(1, 2))
def _accuracy(layer: LayerSetup) -> LayerShapes:
    param = layer.param
    shape, labels = layer.bottoms
    axis = layer.axis(param.axis)
    classes = count(shape) // max(1, count(labels))
    if param.top_k > classes:
        layer.fail(f"top_k {param.top_k} is more than the {classes} classes of {layer.bottom(0)}")
    _check_num_labels(layer, axis)
    return LayerShapes([(), (shape[axis],)][: layer.num_tops])
