"""Snapshots: ``.caffemodel`` and ``.solverstate`` files, written and read as Caffe does."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from google.protobuf.message import DecodeError

from irv2caffe.atomic import atomic_file, write_error
from irv2caffe.errors import FormatError, OutputError
from irv2caffe.proto import messages, wire
from irv2caffe.proto.binary import LIMIT_BYTES, blob_from_array, read_fitting_array
from irv2caffe.proto.input_files import map_binary
from irv2caffe.proto.snapshot_headers import read_state_header
from irv2caffe.weights.files.hdf5 import read_hdf5

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

_FIELDS = messages.SolverState.DESCRIPTOR.fields_by_name
_HISTORY = _FIELDS["history"].number
_OTHER = "is it of another solver type or net?"


@dataclass(frozen=True)
class State:
    """A solver state without its history.

    Attributes:
        iteration: number of updates.
        learned_net: path of the model, as Caffe writes it: relative to the working folder.
        current_step: of the learning rate policy.
    """

    iteration: int
    learned_net: str
    current_step: int


def snapshot_path(param: Any, iteration: int, suffix: str) -> str:
    """The path of a file of a snapshot: ``PREFIX_iter_N.caffemodel``."""
    return f"{param.snapshot_prefix}_iter_{iteration}{suffix}"


def check_prefix(param: Any) -> None:
    """Checks that snapshots can be written, by writing and removing a file.

    Raises:
        OutputError: they cannot.
    """
    probe = Path(snapshot_path(param, 0, ".tempfile"))
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"Cannot write to snapshot prefix '{param.snapshot_prefix}': {error.strerror}",
            "make sure that the directory exists and is writable",
        ) from error


def write_state(path: Path, state: State, history: Sequence[Tensor]) -> None:
    """Writes a ``.solverstate`` blob by blob, atomically.

    Raises:
        OutputError: larger than 2 GiB, or the file cannot be written.
    """
    size = 0
    with atomic_file(path) as aside:
        try:
            with aside.open("wb") as stream:
                for part in _encoded(state, history):
                    size += stream.write(part)
        except OSError as error:
            raise write_error(path, error) from error
        if size > LIMIT_BYTES:
            raise OutputError(f"cannot write {path}: more than the 2 GiB that protobuf can hold")


def _encoded(state: State, history: Sequence[Tensor]) -> Iterator[bytes]:
    """The fields in the order of their numbers, as Caffe's C++ writes them."""
    head = messages.SolverState(iter=state.iteration, learned_net=state.learned_net)
    yield head.SerializeToString()
    for tensor in history:
        data = blob_from_array(tensor.detach().cpu().numpy()).SerializeToString()
        yield wire.tag(_HISTORY, wire.LENGTH) + wire.varint(len(data)) + data
    yield messages.SolverState(current_step=state.current_step).SerializeToString()


def read_state(path: Path, history: Sequence[Tensor]) -> State:
    """Reads a solver state, binary or HDF5; overwrites the history.

    Raises:
        MissingInputError: no such file.
        FormatError: damaged, or of another net or solver type.
        MissingExtraError: h5py is not installed.
    """
    return _read_hdf5(path, history) if path.suffix == ".h5" else _read_binary(path, history)


def _read_binary(path: Path, history: Sequence[Tensor]) -> State:
    header = read_state_header(path)
    _check_count(header.num_history, len(history), path)
    blobs = (value for number, _, value in wire.fields(map_binary(path)) if number == _HISTORY)
    for index, (data, tensor) in enumerate(zip(blobs, history, strict=True)):
        try:
            blob = messages.BlobProto.FromString(bytes(data))
            values = read_fitting_array(blob, tuple(tensor.shape))
        except (FormatError, DecodeError) as error:
            raise FormatError(f"history blob {index}: {error}", _OTHER, path=path) from error
        tensor.copy_(torch.from_numpy(values))
    return State(header.iteration, header.learned_net, header.current_step)


def _read_hdf5(path: Path, history: Sequence[Tensor]) -> State:
    """The file that SnapshotSolverStateToHDF5 writes."""
    with ExitStack() as stack:
        arrays = read_hdf5(path, stack)
        count = sum(name.startswith("history/") for name in arrays)
        _check_count(count, len(history), path)
        try:
            for index, tensor in enumerate(history):
                stored = arrays[f"history/{index}"]
                if stored.shape != tuple(tensor.shape):  # a small file can declare a large array
                    raise FormatError(f"history blob {index}: another shape", _OTHER, path=path)
                tensor.copy_(torch.from_numpy(np.asarray(stored.read(), "f4")))
            iteration, step = (int(arrays[name].read().item()) for name in ("iter", "current_step"))
            learned_net = bytes(arrays["learned_net"].read().item()).decode("utf-8", "replace")
        except (KeyError, ValueError, TypeError) as error:
            raise FormatError("not a solver state", "is it truncated?", path=path) from error
    return State(iteration, learned_net, step)


def _check_count(found: int, wanted: int, path: Path) -> None:
    if found != wanted:
        raise FormatError(
            f"Incorrect length of history blobs. ({found} vs. {wanted})",
            _OTHER,
            path=path,
        )
