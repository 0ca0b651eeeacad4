"""Opens a trained model: its net for use, weights, preprocessing and class names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.data.records.class_table import class_names, read_labels
from irv2caffe.errors import InputError, NetError, WeightsError
from irv2caffe.inference.finding import (
    Found,
    PreprocessingOptions,
    completed,
    data_layer,
    from_data_layer,
    from_header,
    source_of,
)
from irv2caffe.inference.model import Model
from irv2caffe.inference.nets import Ends, ends_of, inference_net
from irv2caffe.inference.places import Place, find_place
from irv2caffe.inference.preprocessing import Preprocessing, read_preprocessing
from irv2caffe.proto.snapshot_headers import read_model_header
from irv2caffe.proto.text import read_net, read_text
from irv2caffe.shapes.infer import NetShapes, infer
from irv2caffe.shapes.layer_types import count
from irv2caffe.shapes.layer_types.base import shape_text
from irv2caffe.shapes.memory import add, memory
from irv2caffe.system import total_memory_bytes
from irv2caffe.train.run_dir.hdf5_snapshots import layer_shapes
from irv2caffe.train.run_dir.run_dir import read_config
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from irv2caffe.proto.snapshot_headers import ModelHeader

    Shapes = Sequence[tuple[int, ...]]

_SAY_IT = (
    "say it with --mean-value or --mean-file, --scale, and --resize for the size before the "
    "crop, such as --mean-value 104,117,123 --resize 256"
)
_NO_OPTIONS = PreprocessingOptions()


def open_model(
    source: Path,
    *,
    net: Path | None = None,
    labels: Path | None = None,
    snapshot: str = "best",
    override: PreprocessingOptions = _NO_OPTIONS,
) -> Model:
    """Opens a trained model.

    Args:
        source: a run folder, a .caffemodel, or a folder made by ``deploy``.
        net: its net, a deploy or a train_val net; None looks beside and above the weights.
        labels: the class table; None takes that of the run's database or of the bundle.
        snapshot: of a run: ``best``, ``last`` or an iteration.
        override: what the user says of the preprocessing.

    Raises:
        MissingInputError: a file is missing.
        NetError: the net is no classifier of images.
        WeightsError: the weights are not those of the net.
        InputError: the preprocessing is not known, or the class table is another one.
    """
    place = find_place(source, net, snapshot)
    written, _ = read_net(place.net)
    is_hdf5 = place.weights.name.endswith(".h5")
    header = None if is_hdf5 else read_model_header(place.weights)
    stored = layer_shapes(place.weights) if header is None else _stored(header)
    bundled = read_preprocessing(place.bundle) if place.bundle is not None else None
    found = _as_found(bundled) if bundled is not None else _found(place, written)
    try:
        usable, shape = _shaped(written, bundled, found, header)
        ends = ends_of(usable)
        shapes = infer(usable, "TEST")
        num_classes = _num_classes(shapes, ends)
        _check_memory(shapes)
    except NetError as error:
        raise NetError(error.message, error.hint, layer=error.layer, path=place.net) from error
    _check_weights(shapes, stored, place)
    names, notes = _names(place, written, labels, num_classes)
    is_unknown = found is not None and override.resize is None
    return Model(
        net=usable,
        weights=place.weights,
        input=ends.input,
        logits=ends.logits,
        probabilities=ends.probabilities,
        num_classes=num_classes,
        preprocessing=completed(found, override, shape, _SAY_IT),
        class_names=names,
        run=place.run,
        train_val=place.train_val,
        iteration=place.iteration,
        notes=(*place.notes, *(found.notes if found and is_unknown else ()), *notes),
    )


def _as_found(made: Preprocessing) -> Found:
    return Found(
        made.mean,
        made.scale,
        made.stored,
        made.resize,
        made.interpolation,
        made.channels,
        made.source,
    )


def _found(place: Place, written: Any) -> Found | None:
    """The preprocessing in the files of a model."""
    layer = data_layer(written)
    if layer is not None:
        config = read_config(place.run) if place.run is not None else {}
        return from_data_layer(layer, place.net, config.get("stored_images"))
    for path in (place.net, place.deploy):
        if path is not None and (found := from_header(read_text(path), path)):
            return found
    if place.train_val is not None and place.train_val != place.net:
        layer = data_layer(read_net(place.train_val)[0])
        if layer is not None:
            return from_data_layer(layer, place.train_val)
    return None


def _shaped(
    written: Any, bundled: Preprocessing | None, known: Found | None, header: ModelHeader | None
) -> tuple[Any, tuple[int, int, int]]:
    """The net for use with all sizes of its input, and these."""
    usable = inference_net(written)
    channels, height, width = ends_of(usable).shape
    if bundled is not None and not (height and width):
        height, width = bundled.height, bundled.width
    if not channels:
        channels = _channels_of_weights(usable, header) or (known.channels if known else 0) or 3
    if known is not None and not (height and width) and known.stored is not None:
        height, width = known.stored
    if not (height and width):
        raise NetError(
            "the size of its input is not known: it has no crop_size, and no database tells it",
            "name a deploy net with --net, which has an Input of a size",
        )
    shape = (channels, height, width)
    usable.layer[0].input_param.shape[0].dim[:] = (1, *shape)
    return usable, shape


def _channels_of_weights(usable: Any, header: ModelHeader | None) -> int:
    """The channels that the first convolution takes, by its weights; 0 if they do not tell."""
    shapes = _stored(header) if header else {}
    for layer in usable.layer:
        if layer.type == "Convolution":
            first = shapes.get(layer.name, ())[:1]
            known = [shape for shape in first if len(shape) == 4]
            return known[0][1] * layer.convolution_param.group if known else 0
    return 0


def _num_classes(shapes: NetShapes, ends: Ends) -> int:
    shape = shapes.blobs[ends.logits]
    if len(shape) < 2 or count(shape) != shape[0] * shape[1] or shape[1] < 2:
        raise NetError(
            f"its scores {ends.logits!r} have the shape {shape_text(shape)}: not one for each "
            "of several classes",
            "nets that give one class for an image can be used",
        )
    return int(shape[1])


def _check_memory(shapes: NetShapes) -> None:
    """Refuses a net that needs more memory for one image than there is."""
    needed = add(memory(shapes, backward=False)).total
    if needed > total_memory_bytes():
        raise NetError(
            f"it needs {format_bytes(needed)} of memory for one image, this machine has "
            f"{format_bytes(total_memory_bytes())}",
            "are its sizes right? irv2caffe summary lists them",
        )


def _stored(header: ModelHeader) -> dict[str, Shapes]:
    return {layer.definition.name: layer.shapes for layer in header.layers}


def _check_weights(shapes: NetShapes, stored: Mapping[str, Shapes], place: Place) -> None:
    """Refuses weights that lack layers: Caffe would fill these at random, and say nothing."""
    if not any(stored):  # layers of 2013, whose names are in another message
        return
    problems = []
    for layer in shapes.layers:
        if not layer.params:
            continue
        if layer.name not in stored:
            problems.append(f"layer {layer.name} is not in the weights")
            continue
        own, theirs = ([*map(count, each)] for each in (layer.params, stored[layer.name]))
        if own != theirs:
            shown = [
                ", ".join(map(shape_text, each)) or "none"
                for each in (layer.params, stored[layer.name])
            ]
            problems.append(f"layer {layer.name}: {shown[0]} in the net, {shown[1]} in the weights")
    if problems:
        raise WeightsError(
            f"{place.weights} does not hold the weights of {place.net}: {problems[0]}",
            tuple(problems),
            "name the net of these weights with --net",
        )


def _names(
    place: Place, written: Any, labels: Path | None, num_classes: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The class names, and notes on them."""
    if labels is not None:
        names = read_labels(labels)
        if len(names) != num_classes:
            raise InputError(
                f"{labels} names {len(names)} classes, the net has {num_classes}",
                "give the class table of the training",
            )
        return names, ()
    folders = [place.bundle, place.net.parent, place.weights.parent]
    layer = data_layer(written)
    if layer is not None and layer.type == "Data":
        folders.insert(0, source_of(layer))
    folders.insert(0, place.run)  # its copy is of the training; a database may be another since
    for folder in filter(None, folders):
        names = class_names(folder)
        if len(names) == num_classes:
            return names, ()
    return (), ("no class table was found: classes are numbers; --labels names one",)
