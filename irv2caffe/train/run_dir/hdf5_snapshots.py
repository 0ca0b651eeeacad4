"""Reads snapshots of ``snapshot_format: HDF5`` and converts them to binary ones.

Caffe writes them (sgd_solver.cpp, SnapshotSolverStateToHDF5; net.cpp, ToHDF5): ``iter``,
``learned_net``, ``current_step`` and ``history/0`` ... in one file, ``data/LAYER/0`` ... in the
other.
"""

from __future__ import annotations

import math
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import FormatError, InputError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array, write_binary
from irv2caffe.proto.caffemodel import write_model
from irv2caffe.proto.snapshot_headers import StateHeader
from irv2caffe.shapes.phases import select
from irv2caffe.system import open_regular
from irv2caffe.weights.files.hdf5 import read_hdf5

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from irv2caffe.weights.tensors import StoredArray

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Whether a file has the signature of HDF5."""
    try:
        with open_regular(path) as stream:
            return stream.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False


def state_header(path: Path) -> StateHeader:
    """The header of a solver state.

    Raises:
        FormatError: torn, or another kind of file.
        MissingExtraError: h5py is not installed.
    """
    with _arrays(path) as arrays:
        return _state_header(arrays, path)


def _state_header(arrays: dict[str, StoredArray], path: Path) -> StateHeader:
    try:
        iteration, step = (int(arrays[name].read().item()) for name in ("iter", "current_step"))
        learned_net = bytes(arrays["learned_net"].read().item()).decode("utf-8", "replace")
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError("not a solver state", "give a .caffemodel to --weights", path=path) from (
            error
        )
    count = sum(name.startswith("history/") for name in arrays)
    return StateHeader(iteration, learned_net, count, step)


def write_state(source: Path, target: Path, learned_net: str) -> None:
    """Converts a solver state to a binary one, with a new path of its model.

    Raises:
        FormatError: torn, or another kind of file.
        OutputError: it cannot be written.
    """
    state = messages.SolverState()
    with _arrays(source) as arrays:
        outline = _state_header(arrays, source)
        state.iter, state.current_step = outline.iteration, outline.current_step
        state.learned_net = learned_net
        for number in range(outline.num_history):
            name = f"history/{number}"
            if name not in arrays:
                raise FormatError(f"torn: {name} is missing", path=source)
            state.history.append(blob_from_array(arrays[name].read()))
    write_binary(target, state)


def write_weights(source: Path, target: Path, net: Any) -> None:
    """Converts a model to a binary one, with the layer definitions of a net.

    Raises:
        FormatError: torn, or another kind of file.
        InputError: it is of another net.
        OutputError: it cannot be written.
    """
    with _arrays(source) as arrays:
        _refuse_other_net(arrays, source, net)
        head = messages.NetParameter(name=net.name)
        write_model(target, head, _layers(arrays, net))


def refuse_other_net(model: Path, net: Any) -> None:
    """Refuses a model with layers that the net lacks; nets of the old format are not compared.

    Raises:
        InputError: the net lacks a layer of the model.
        FormatError: the file is truncated, or of another kind.
    """
    with _arrays(model) as arrays:
        _refuse_other_net(arrays, model, net)


def _refuse_other_net(arrays: dict[str, StoredArray], path: Path, net: Any) -> None:
    known = {layer.name for layer in select(net, "TRAIN").layer}
    there = {name.split("/")[1] for name in arrays if name.count("/") == 2}
    if not there or any(not name.startswith("data/") for name in arrays if "/" in name):
        raise FormatError("not a model", "give a .solverstate to --resume", path=path)
    strange = sorted(there - known)
    if strange and known:
        raise InputError(f"{path}: belongs to another net: layer {strange[0]} is not in this net")


def layer_shapes(model: Path) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The shapes of the blobs of each layer of a model.

    Raises:
        FormatError: the file is truncated, or of another kind.
        MissingExtraError: h5py is not installed.
    """
    found: dict[str, dict[int, tuple[int, ...]]] = {}
    with _arrays(model) as arrays:
        for name, array in arrays.items():
            top, _, rest = name.partition("/")
            layer, _, number = rest.rpartition("/")
            if top == "data" and layer and number.isdecimal():
                found.setdefault(layer, {})[int(number)] = tuple(array.shape)
    return {layer: tuple(found[layer][at] for at in sorted(found[layer])) for layer in found}


def _layers(arrays: dict[str, StoredArray], net: Any) -> Iterator[Any]:
    for layer in select(net, "TRAIN").layer:
        del layer.blobs[:]
        number = 0
        while (raw := arrays.get(f"data/{layer.name}/{number}")) is not None:
            layer.blobs.append(blob_from_array(raw.read()))
            number += 1
        yield layer


@contextmanager
def _arrays(path: Path) -> Iterator[dict[str, StoredArray]]:
    """The data sets of a file, after checking that their declared sizes fit into it."""
    with ExitStack() as stack:
        arrays = read_hdf5(path, stack)
        sizes = (math.prod(raw.shape) * max(4, _item_bytes(raw.kind)) for raw in arrays.values())
        if sum(sizes) > path.stat().st_size:
            raise FormatError("smaller than its data sets", "it may be truncated", path=path)
        yield arrays


def _item_bytes(kind: str) -> int:
    import numpy as np

    try:
        return int(np.dtype(kind).itemsize)
    except TypeError:
        return 0
