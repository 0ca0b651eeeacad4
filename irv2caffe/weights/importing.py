"""Imports weights of other libraries into a ``.caffemodel``."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import refuse_existing
from irv2caffe.errors import WeightsError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array
from irv2caffe.proto.caffemodel import write_model
from irv2caffe.weights.differences import differences
from irv2caffe.weights.matching import (
    MatchedArrays,
    drops_background,
    match,
    sums_colours,
    value_problems,
)
from irv2caffe.weights.opening import open_weights
from irv2caffe.weights.places import NetPlaces, read_places
from irv2caffe.weights.scopes import AUX_LOGITS, INPUT, LOGITS
from irv2caffe.weights.tensors import Key, Role

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

GRAY = "gray"


@dataclass
class ImportReport:
    """The result of import-weights.

    Attributes:
        out: the ``.caffemodel``.
        source: the file with the weights.
        source_format: ``timm``, ``keras`` or ``tf-slim``.
        channels: the order of the net's colour channels; ``gray`` if the weights of the colours
            were summed for a net of one channel.
        num_classes: outputs of the classifier; 0 if it was left out.
        num_parameters: learned values, without BatchNorm's statistics.
        size_bytes: of the ``.caffemodel``.
        by_order: layers were recognised by their order, not by their names.
        dropped_background: class 0 of the source was left out.
        gamma: ``source``, or ``ones`` if the source has none.
        left_to_fillers: layers without weights in the file, which Caffe fills.
        unused: arrays of the source that the net does not need.
        prefix: common prefix of the names in the source, which was removed.
        num_ignored: arrays of the source that only training needs.
        differences: one line for each reason why the logits differ from the source's.
    """

    out: Path
    source: Path
    source_format: str
    channels: str
    num_classes: int = 0
    num_parameters: int = 0
    size_bytes: int = 0
    by_order: bool = False
    dropped_background: bool = False
    gamma: str = "source"
    left_to_fillers: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    prefix: str = ""
    num_ignored: int = 0
    differences: list[str] = field(default_factory=list)


def import_weights(
    source: Path,
    net: Path,
    out: Path,
    *,
    source_format: str = "auto",
    channels: str = "bgr",
    averaged: bool = False,
    without_classifier: bool = False,
    force: bool = False,
) -> ImportReport:
    """Writes the weights of ``source`` as a ``.caffemodel`` for ``net``.

    The networks of all three libraries take RGB from -1 to 1. Caffe's images are BGR from 0 to
    255, which mean 127.5 and scale 1/127.5 bring to the same range; the first convolution's
    weights are reordered from RGB to BGR.

    Args:
        source: timm's safetensors or .pth, Keras's .h5 or .keras, a TF-slim checkpoint.
        net: prototxt of the net: deploy or train_val.
        out: the file to write; it appears only when it is complete.
        source_format: ``timm``, ``keras``, ``tf-slim``, or ``auto``.
        channels: order of the net's colour channels, ``bgr`` or ``rgb``.
        averaged: take the moving averages of the weights that a trainer kept.
        without_classifier: leave out the classifiers, to train new ones.
        force: replace an existing file.

    Raises:
        WeightsError: all names, shapes and values that do not fit.
        InputError: a missing or damaged file, or one of another kind.
        MissingExtraError: a package to read the source is not installed.
        OutputError: the result exists or cannot be written.
    """
    if not force:
        refuse_existing(out)
    found = read_places(net)
    with ExitStack() as stack:
        format_, named = open_weights(source, stack, source_format=source_format, averaged=averaged)
        matched = match(found, named, without_classifier=without_classifier)
        _refuse(source, matched.problems)
        report = ImportReport(
            out,
            source,
            format_,
            GRAY if _is_gray(found) else channels,
            num_classes=0 if LOGITS in matched.left_out else found.num_classes,
            by_order=found.by_order,
            dropped_background=matched.drops_background(found),
            gamma="source" if any(key.role == Role.GAMMA for key in named.tensors) else "ones",
            left_to_fillers=[found.groups[scope].layer.name for scope in sorted(matched.left_out)],
            unused=matched.unused,
            prefix=named.prefix,
            num_ignored=len(named.ignored),
            differences=differences(found.net, found.groups),
        )
        report.size_bytes = write_model(out, found.net, _layers(found, matched, report))
    return report


def _is_gray(found: NetPlaces) -> bool:
    """Whether the net takes images of one channel."""
    place = found.places.get(Key(INPUT, Role.WEIGHT))
    return place is not None and place.shape[1] == 1


def _refuse(source: Path, problems: list[str]) -> None:
    """Raises WeightsError if there are any problems."""
    if not problems:
        return
    hint = ""
    if all(problem.startswith((f"{LOGITS}:", f"{AUX_LOGITS}:")) for problem in problems):
        hint = "--without-classifier leaves the classifier out, to be trained anew"
    count = f"{len(problems)} thing{'s' if problems[1:] else ''}"
    raise WeightsError(f"{source} does not fit the net: {count}", tuple(problems), hint)


def _layers(found: NetPlaces, matched: MatchedArrays, report: ImportReport) -> Iterator[Any]:
    """The net's layers with their blobs, one by one.

    Layers that are left to the fillers are left out, since Caffe aborts when a layer in the file
    has another number of blobs than in the net.

    Raises:
        WeightsError: at the end, for values that are not finite or negative variances.
    """
    import numpy as np

    problems: list[str] = []
    blobs: dict[str, list[Key]] = {}
    for key in sorted(matched.tensors, key=lambda key: found.places[key].index):
        blobs.setdefault(found.places[key].layer, []).append(key)
    done = {layer.name for scope in matched.left_out for layer in found.groups[scope].layers}
    for layer in found.net.layer:
        if layer.name in done:
            continue
        copy = messages.LayerParameter()
        copy.CopyFrom(layer)
        copy.ClearField("blobs")
        for key in blobs.get(layer.name, ()):
            values = _values(key, found, matched, report.channels)
            problems += value_problems(key, values)
            copy.blobs.append(blob_from_array(values))
            report.num_parameters += 0 if layer.type == "BatchNorm" else values.size
        if copy.blobs:
            done.add(layer.name)
            if layer.type == "BatchNorm":  # the factor that its statistics are divided by
                copy.blobs.append(blob_from_array(np.ones(1, "f4")))
        yield copy
    _refuse(report.source, problems)


def _values(
    key: Key, found: NetPlaces, matched: MatchedArrays, channels: str
) -> NDArray[np.float32]:
    """The values of a blob."""
    import numpy as np

    tensor, shape = matched.tensors[key], found.places[key].shape
    if tensor is None:
        return np.ones(shape, "f4")
    values = tensor.read()
    if sums_colours(key, tensor, shape):
        gray: NDArray[np.float32] = values.sum(axis=1, keepdims=True)
        return gray
    if drops_background(key, tensor, shape):
        values = values[1:]
    return rgb_to_bgr(values) if key == Key(INPUT, Role.WEIGHT) and channels == "bgr" else values


def rgb_to_bgr(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first convolution's weights with red and blue exchanged; unchanged for grey images."""
    return values[:, ::-1] if values.shape[1] == 3 else values
