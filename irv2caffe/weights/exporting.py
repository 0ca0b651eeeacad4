"""Exports a ``.caffemodel`` to timm's state dict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import refuse_existing
from irv2caffe.errors import FormatError, UsageError, WeightsError
from irv2caffe.proto.binary import read_array
from irv2caffe.proto.caffemodel import ModelFile
from irv2caffe.weights.files.safetensors import write_safetensors
from irv2caffe.weights.files.torch_file import write_torch
from irv2caffe.weights.importing import rgb_to_bgr
from irv2caffe.weights.matching import sizes_text, value_problems
from irv2caffe.weights.places import NetPlaces, Place, read_places
from irv2caffe.weights.scopes import INPUT
from irv2caffe.weights.sources.timm import BATCHES, timm_names
from irv2caffe.weights.tensors import Key, Role

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

_WRITERS = {".safetensors": write_safetensors, ".pth": write_torch, ".pt": write_torch}
_STATISTICS = (Role.MEAN, Role.VARIANCE)


@dataclass
class ExportReport:
    """The result of export-weights.

    Attributes:
        out: the state dict.
        model: the ``.caffemodel``.
        channels: the order of the net's colour channels.
        num_classes: outputs of the classifier.
        num_parameters: learned values, without BatchNorm's statistics.
        by_order: layers were recognised by their order, not by their names.
        unused: layers with weights that timm's model does not have.
        empty_statistics: BatchNorm layers whose statistics are of no image; their variance is 0.
    """

    out: Path
    model: Path
    channels: str
    num_classes: int
    num_parameters: int = 0
    by_order: bool = False
    unused: list[str] = field(default_factory=list)
    empty_statistics: list[str] = field(default_factory=list)


def export_weights(
    model: Path, net: Path, out: Path, *, channels: str = "bgr", force: bool = False
) -> ExportReport:
    """Writes a ``.caffemodel`` as the state dict of timm's ``inception_resnet_v2``.

    BatchNorm's statistics are divided by their factor in float32, as in Caffe. Weights that
    import-weights took from timm are exported bit by bit; ``num_batches_tracked``, which Caffe
    does not have, is 0.

    Args:
        model: the weights.
        net: prototxt of the net: deploy or train_val.
        out: ``.safetensors``, ``.pth`` or ``.pt``.
        channels: order of the net's colour channels, ``bgr`` or ``rgb``.
        force: replace an existing file.

    Raises:
        UsageError: another suffix.
        WeightsError: all layers and values that timm's model does not have.
        InputError: a missing or damaged file.
        MissingExtraError: the package for the format is not installed.
        OutputError: the result exists or cannot be written.
    """
    writer = _WRITERS.get(out.suffix)
    if writer is None:
        raise UsageError(f"--out {out}: which format?", f"end it in {', '.join(_WRITERS)}")
    if not force:
        refuse_existing(out)
    found = read_places(net)
    reader = _ModelArrays(ModelFile(model), found, channels)
    arrays = reader.check()
    report = ExportReport(out, model, channels, found.num_classes, by_order=found.by_order)
    writer(out, arrays, reader.read)
    report.num_parameters = reader.num_parameters
    report.empty_statistics = reader.empty_statistics
    report.unused = reader.unused()
    return report


class _ModelArrays:
    """The arrays of a model by timm's names."""

    def __init__(self, model: ModelFile, found: NetPlaces, channels: str) -> None:
        self._model = model
        self._found = found
        self._channels = channels
        self._names = timm_names()
        self._wanted = set(self._names.values())
        self.num_parameters = 0
        self.empty_statistics: list[str] = []

    def check(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Name, type and shape of each array of the state dict.

        Raises:
            WeightsError: all arrays that are missing, superfluous, of another shape or not finite.
        """
        problems = list(self._found.problems)
        arrays: list[tuple[str, str, tuple[int, ...]]] = []
        for name, key in self._names.items():
            place = self._found.places.get(key)
            group = self._found.groups.get(key.scope)
            # A Bias after BatchNorm instead of a Scale: gamma is 1.
            has_bias_layer = group is not None and group.affine is not None
            if place is None and not (has_bias_layer and key.role == Role.GAMMA):
                problems.append(f"{key.scope}: the net has no {key.role}")
                continue
            problems += [] if place is None else self._misfits(key, place)
            shape = place.shape if place else self._found.groups[key.scope].shape[:1]
            arrays.append((name, "float32", shape))
            if key.role == Role.VARIANCE:
                arrays.append((f"{name.removesuffix('running_var')}{BATCHES}", "int64", ()))
        for key in self._found.places:
            if key not in self._wanted and not key.scope.startswith("AuxLogits"):
                problems.append(f"{key.scope}: timm's model has no {key.role} here")
        if problems:
            count = f"{len(problems)} thing{'s' if problems[1:] else ''}"
            raise WeightsError(
                f"{self._model.path} does not fit timm's model: {count}", tuple(problems)
            )
        return arrays

    def _misfits(self, key: Key, place: Place) -> list[str]:
        """What is wrong with a blob; empty if it fits."""
        import numpy as np

        blobs = self._model.blobs(place.layer)
        if place.index >= len(blobs) or (key.role in _STATISTICS and len(blobs) < 3):
            return [f"{key.scope}: the model has no {key.role} (layer {place.layer})"]
        blob = blobs[place.index]
        try:
            values = read_array(blob)
        except FormatError as error:
            return [f"{key.scope}: {key.role} is {error.message}"]
        wanted = place.shape
        if not blob.HasField("shape"):  # before 2015 all blobs had four axes
            wanted = (1,) * (4 - len(wanted)) + wanted
        if values.shape != wanted:
            theirs, ours = sizes_text(values.shape), sizes_text(place.shape)
            return [f"{key.scope}: {key.role} is {theirs} in the model, {ours} in the net"]
        if key.role in _STATISTICS:
            inverse = _inverse(blobs[2])
            if inverse is None:
                return [f"{key.scope}: the factor of its {key.role} is not one number"]
            with np.errstate(over="ignore", invalid="ignore"):
                values = values * inverse
        return value_problems(key, values)

    def read(self, name: str) -> NDArray[Any]:
        """The values of an array of the state dict."""
        import numpy as np

        key = self._names.get(name)
        if key is None:
            return np.zeros((), np.int64)
        place = self._found.places.get(key)
        shape = place.shape if place else self._found.groups[key.scope].shape[:1]
        if key.role not in _STATISTICS:
            self.num_parameters += int(np.prod(shape))
        if place is None:
            return np.ones(shape, "f4")
        blobs = self._model.blobs(place.layer)
        values = read_array(blobs[place.index]).astype("f4", copy=False).reshape(shape)
        if key.role in _STATISTICS:
            inverse = _inverse(blobs[2])
            if inverse == 0 and key.role == Role.VARIANCE:
                self.empty_statistics.append(place.layer)
            return values * inverse
        return (
            rgb_to_bgr(values)
            if key == Key(INPUT, Role.WEIGHT) and self._channels == "bgr"
            else values
        )

    def unused(self) -> list[str]:
        """Layers with blobs that are not exported."""
        used = {
            layer.name
            for scope, group in self._found.groups.items()
            for layer in group.layers
            if any(key.scope == scope for key in self._wanted)
        }
        return [name for name in self._model.layers if name not in used and self._model.blobs(name)]


def _inverse(blob: Any) -> np.float32 | None:
    """The inverse of BatchNorm's factor; 0 for 0, as in batch_norm_layer.cpp.

    None if the blob is not one number.
    """
    import numpy as np

    try:
        factor = read_array(blob).astype("f4").ravel()
    except FormatError:
        return None
    if factor.size != 1:
        return None
    with np.errstate(over="ignore", divide="ignore"):
        return np.float32(0) if factor[0] == 0 else np.float32(np.float32(1) / factor[0])
