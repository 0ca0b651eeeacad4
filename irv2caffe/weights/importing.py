"""Other libraries' weights into a ``.caffemodel``."""

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
from irv2caffe.weights.matching import MatchedArrays, drops_background, match
from irv2caffe.weights.opening import open_weights
from irv2caffe.weights.places import NetPlaces, read_places
from irv2caffe.weights.scopes import AUX_LOGITS, INPUT, LOGITS
from irv2caffe.weights.tensors import GAMMA, VARIANCE, WEIGHT, Key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


@dataclass
class ImportReport:
    """What import-weights did.

    Attributes:
        out: the ``.caffemodel``.
        source: the file that the weights came from.
        source_format: ``timm``, ``keras`` or ``tf-slim``.
        channels: the order of colours that the net expects.
        num_classes: outputs of the classifier; 0 where it was left out.
        num_parameters: learned values, without BatchNorm's statistics.
        size_bytes: of the file.
        by_order: layers were recognised by their order, not by their names.
        dropped_background: the source's class 0 is not in the net.
        gamma: ``source``, or ``ones`` where the source has none.
        left_to_fillers: layers that are not in the file, so that Caffe fills them.
        unused: arrays of the source that this net has no use for.
        prefix: what stands before the names in the source, and is left out.
        num_ignored: arrays that a trainer kept beside the weights.
        differences: what makes the logits others than the source's, one line each.
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

    The networks of all three libraries see RGB from -1 to 1. Caffe's images are BGR from 0 to 255,
    which mean 127.5 and scale 1/127.5 take to the same range; the order of colours is turned in
    the first convolution.

    Args:
        source: timm's safetensors or .pth, Keras's .h5 or .keras, a TF-slim checkpoint.
        net: prototxt of the net: deploy or train_val.
        out: the file to write; it appears when it is complete.
        source_format: ``timm``, ``keras``, ``tf-slim``, or ``auto``.
        channels: order of colours that the net is given, ``bgr`` or ``rgb``.
        averaged: take the moving averages of the weights that a trainer kept.
        without_classifier: leave the classifiers out, to train them anew.
        force: replace an existing file.

    Raises:
        WeightsError: names, shapes or values that do not fit, all of them.
        InputError: a file that is not there, damaged, or of another kind.
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
            channels,
            num_classes=0 if LOGITS in matched.left_out else found.num_classes,
            by_order=found.by_order,
            dropped_background=_drops_background(found, matched),
            gamma="source" if any(key.part == GAMMA for key in named.tensors) else "ones",
            left_to_fillers=[found.groups[scope].layer.name for scope in sorted(matched.left_out)],
            unused=matched.unused,
            prefix=named.prefix,
            num_ignored=len(named.ignored),
            differences=differences(found.net, found.groups),
        )
        report.size_bytes = write_model(out, found.net, _layers(found, matched, report))
    return report


def _drops_background(found: NetPlaces, matched: MatchedArrays) -> bool:
    key = Key(LOGITS, WEIGHT)
    tensor = matched.tensors.get(key)
    return tensor is not None and drops_background(key, tensor, found.places[key].shape)


def _refuse(source: Path, problems: list[str]) -> None:
    """Raises WeightsError if there are problems."""
    if not problems:
        return
    hint = ""
    if all(problem.startswith((f"{LOGITS}:", f"{AUX_LOGITS}:")) for problem in problems):
        hint = "--without-classifier leaves the classifier out, to be trained anew"
    count = f"{len(problems)} thing{'s' if problems[1:] else ''}"
    raise WeightsError(f"{source} does not fit the net: {count}", tuple(problems), hint)


def _layers(found: NetPlaces, matched: MatchedArrays, report: ImportReport) -> Iterator[Any]:
    """The net's layers with their blobs, one by one.

    A layer that is left to the fillers is not in the file at all: Caffe aborts when a layer there
    has another number of blobs than the net's.

    Raises:
        WeightsError: at the end, values that no network can have.
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
            problems += _impossible(key, values)
            copy.blobs.append(blob_from_array(values))
            report.num_parameters += 0 if layer.type == "BatchNorm" else values.size
        if copy.blobs:
            done.add(layer.name)
            if layer.type == "BatchNorm":  # its statistics are sums, divided by this
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
    if drops_background(key, tensor, shape):
        values = values[1:]
    return turned(values) if key == Key(INPUT, WEIGHT) and channels == "bgr" else values


def turned(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first convolution's weights with blue and red exchanged; grey has neither."""
    return values[:, ::-1] if values.shape[1] == 3 else values


def _impossible(key: Key, values: NDArray[np.float32]) -> list[str]:
    """What is wrong with values that no sound training ends with."""
    import numpy as np

    num_bad = values.size - int(np.isfinite(values).sum())
    if num_bad:
        return [f"{key.scope}: {key.part} has {num_bad} of {values.size} values not finite"]
    if key.part == VARIANCE and values.size and values.min() < 0:
        return [f"{key.scope}: {key.part} is below zero"]
    return []
