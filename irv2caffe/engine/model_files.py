"""Weights of a net from and to files: ``.caffemodel``, and ``.caffemodel.h5`` to read."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from irv2caffe.engine.splits import insert_splits
from irv2caffe.errors import FormatError, WeightsError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array, read_fitting_array
from irv2caffe.proto.caffemodel import ModelFile, write_model
from irv2caffe.shapes.layer_types import SHAPE_RULES
from irv2caffe.shapes.layer_types.base import shape_text
from irv2caffe.weights.files.hdf5 import read_hdf5

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from irv2caffe.engine.layer import Layer
    from irv2caffe.engine.net import Net
    from irv2caffe.weights.tensors import StoredArray

_Read: TypeAlias = Callable[[tuple[int, ...]], "NDArray[Any]"]
"""Returns the values of a stored blob for a shape; raises FormatError if it has another."""
_StoredLayer: TypeAlias = tuple[str, dict[int, _Read]]


@dataclass
class LoadedModel:
    """What a file had for a net.

    Attributes:
        copied: the layers whose weights it had.
        ignored: layers with weights that the net does not have.
        kept: layers of the net with weights that the file did not have.
    """

    copied: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def load_model(path: Path, net: Net) -> LoadedModel:
    """Copies the weights of layers with the same name (Net::CopyTrainedLayersFrom).

    As in Caffe, a file whose name ends in ``.h5`` is read as HDF5; of several layers of one name
    the last of the file counts, and the first of the net gets it.

    Args:
        path: a ``.caffemodel``, also with layers of before 2015, or a ``.caffemodel.h5``.
        net: is not changed if anything does not fit.

    Raises:
        WeightsError: all layers with another number of weights or other shapes.
        MissingInputError: no such file.
        FormatError: it cannot be read, or is of another kind.
        MissingExtraError: h5py is not installed.
    """
    is_hdf5 = path.name.endswith(".h5")
    by_layer = net.weights.by_layer
    shared = _owned_by_others(by_layer) if is_hdf5 else set()
    result = LoadedModel()
    problems: list[str] = []
    copies: list[tuple[Tensor, NDArray[Any]]] = []
    with ExitStack() as stack:
        for name, stored in (_hdf5_layers if is_hdf5 else _binary_layers)(path, stack):
            if name not in by_layer:
                result.ignored += [name] if stored else []
                continue
            result.copied += [name] if stored else []
            blobs = by_layer[name]
            missing = [
                at for at in range(len(blobs)) if at not in stored and (name, at) not in shared
            ]
            if missing or len(stored) > len(blobs):
                problems.append(f"{name}: {len(stored)} in the model, {len(blobs)} in the net")
                continue
            for at, read in stored.items():
                try:
                    copies.append((blobs[at], read(tuple(blobs[at].shape))))
                except FormatError as error:
                    problems.append(f"{name}: blob {at}: {error.message}")
    if problems:
        raise WeightsError(f"{path} does not fit the net", tuple(problems))
    with torch.no_grad():
        for tensor, array in copies:
            tensor.copy_(torch.from_numpy(array))
    result.kept = [name for name, blobs in by_layer.items() if blobs and name not in result.copied]
    return result


def _binary_layers(path: Path, stack: ExitStack) -> Iterator[_StoredLayer]:  # noqa: ARG001
    file = ModelFile(path)
    for name in file.layers:
        blobs = enumerate(file.blobs(name))
        yield name, {at: partial(read_fitting_array, blob) for at, blob in blobs}


def _hdf5_layers(path: Path, stack: ExitStack) -> Iterator[_StoredLayer]:
    """The data sets ``data/LAYER/NUMBER`` (Net::CopyTrainedLayersFromHDF5)."""
    layers: dict[str, dict[int, _Read]] = {}
    arrays = read_hdf5(path, stack)
    for name, array in arrays.items():
        match = re.fullmatch(r"data/(.+)/(\d{1,4})", name)
        if match:
            layers.setdefault(match[1], {})[int(match[2])] = partial(_read_hdf5_array, array)
    if not layers and arrays:
        raise FormatError("not a model", "is it a .solverstate.h5?", path=path)
    yield from layers.items()


def _read_hdf5_array(array: StoredArray, shape: tuple[int, ...]) -> NDArray[Any]:
    if array.shape != shape:  # before any value is read: a small file can declare a large array
        raise FormatError(f"{shape_text(array.shape)} in the model, {shape_text(shape)} in the net")
    return np.asarray(array.read(), np.float32)


def _owned_by_others(by_layer: dict[str, list[Tensor]]) -> set[tuple[str, int]]:
    """The places of blobs that a layer above owns; Caffe leaves them out of HDF5 files."""
    owners: dict[int, tuple[str, int]] = {}
    places = [(name, at) for name, blobs in by_layer.items() for at in range(len(blobs))]
    for name, at in places:
        owners.setdefault(by_layer[name][at].data_ptr(), (name, at))
    return set(places) - set(owners.values())


def save_model(path: Path, net: Net) -> int:
    """Writes the net with its weights as Caffe does, atomically (Net::ToProto).

    The layers are those of the phase with Caffe's Split layers, the fields that Caffe's layers add
    when they are set up, and the blobs, of shared weights too.

    Args:
        path: of the ``.caffemodel``.
        net: usually in phase TRAIN.

    Returns:
        The size of the file in bytes.

    Raises:
        OutputError: larger than 2 GiB, or the file cannot be written.
    """
    head = messages.NetParameter(name=net.shapes.name)
    return write_model(path, head, _saved_layers(net))


def _saved_layers(net: Net) -> Iterator[Any]:
    split = insert_splits([layer.proto for layer in net.layers])
    phase = messages.TRAIN if net.phase == "TRAIN" else messages.TEST
    for proto, position in zip(split.layers, split.positions, strict=True):
        if not proto.HasField("phase"):
            proto.phase = phase
        if position is not None:
            _complete(proto, net.layers[position])
        yield proto


def _complete(proto: Any, layer: Layer) -> None:
    """Adds the blobs of a layer, and what it writes into its own LayerParameter."""
    if layer.info.num_statistics:  # BatchNormLayer::LayerSetUp
        while len(proto.param) < len(layer.blobs):
            proto.param.add(lr_mult=0)
    if SHAPE_RULES[proto.type].auto_tops and not proto.loss_weight:  # LossLayer::LayerSetUp
        proto.loss_weight.append(1)
    del proto.blobs[:]
    proto.blobs.extend(blob_from_array(blob.detach().cpu().numpy()) for blob in layer.blobs)
